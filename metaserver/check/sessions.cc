// Slots belong to sessions; sessions have numbers that were given.
#include "metaserver/check/invariants.h"

namespace shoal::meta {

Status CheckSessions(CheckRun& run) {
  Cursor<pb::SlotRecord> slot(run, Key(KeyKind::kSlot));
  for (; slot.valid(); slot.Next()) {
    TRY(run.Step());
    TRY_ASSIGN(auto session, run.Get<pb::SessionRecord>(SessionKey(SessionId(slot.key().number(0)))));
    if (session && !session->lapsed()) continue;
    run.Mendable("slots", slot.key(), "its session has ended", slot.key(),
                 [](const std::string&) { return std::string(); });
  }
  TRY(slot.status());
  Cursor<pb::SessionRecord> session(run, Key(KeyKind::kSession));
  for (; session.valid(); session.Next()) {
    TRY(run.Step());
    if (IdWasGiven(run, session.key().number(0), run.ids.session())) continue;
    run.Problem("ids", session.key(), "its number was never given, and may be given again",
                "restore a backup, or ask with this output");
  }
  return session.status();
}

}  // namespace shoal::meta
