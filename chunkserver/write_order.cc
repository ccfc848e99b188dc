#include "chunkserver/write_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace shoal {
namespace {

uint64_t RandomNumbering() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  uint64_t n = random();
  return n ? n : 1;
}

}  // namespace

void WriteOrder::StartAt(ChunkVersion version, uint64_t numbering, uint64_t applied) {
  CHECK(idle() && waiting_.empty());
  version_ = version;
  known_ = true;
  frozen_ = false;
  broken_.reset();
  numbering_ = numbering;
  given_ = accepted_ = applied_ = applied;
  memory_.clear();
}

uint64_t WriteOrder::Remembered(SessionId session, uint64_t write_id) {
  for (const Memory& m : memory_) {
    if (m.session != session) continue;
    for (auto [id, number] : m.writes) {
      if (id == write_id) return number;
    }
  }
  return 0;
}

void WriteOrder::Remember(SessionId session, uint64_t write_id, uint64_t number) {
  auto it = std::find_if(memory_.begin(), memory_.end(), [&](const Memory& m) { return m.session == session; });
  if (it == memory_.end()) {
    if (memory_.size() == kMaxSessions) memory_.pop_back();
    memory_.push_front({session, {}});
  } else if (it != memory_.begin()) {
    Memory moved = std::move(*it);
    memory_.erase(it);
    memory_.push_front(std::move(moved));
  }
  auto& writes = memory_.front().writes;
  writes.emplace_back(write_id, number);
  if (writes.size() > kMaxRemembered) writes.pop_front();
}

Result<WriteOrder::Admission> WriteOrder::Admit(const WriteTicket& ticket, WriteOperation write) {
  if (ticket.version != version_ && known_) {
    return Fail(ErrorCode::kVersionMismatch,
                fmt::format("the replica has version {}, not {}", version_.value, ticket.version.value));
  }
  if (frozen_) return Fail(ErrorCode::kNotReady, "a recovery of the chunk is under way");
  // Session 0 is the metaserver, which fences and is not fenced.
  if (ticket.session && ticket.lease < fence_) {
    return Fail(ErrorCode::kLeaseLapsed, fmt::format("write lease {} is below {}", ticket.lease, fence_));
  }
  if (!known_) return Fail(ErrorCode::kChainFailed, "the server was started again and no longer knows its write numbers");
  if (broken_) return Fail(ErrorCode::kChainFailed, "an earlier write failed here: " + broken_->message);

  uint64_t number = ticket.number;
  if (number == 0) {
    number = Remembered(ticket.session, ticket.write_id);
    if (number == 0) {
      number = ++given_;
      Remember(ticket.session, ticket.write_id, number);
    }
    if (numbering_ == 0) numbering_ = RandomNumbering();
  } else {
    if (numbering_ == 0) numbering_ = ticket.numbering;
    if (ticket.numbering != numbering_) {
      return Fail(ErrorCode::kChainFailed, "the write belongs to another count than the ones applied here");
    }
    given_ = std::max(given_, number);
  }

  Admission admission{number, numbering_, nullptr};
  if (number <= applied_) return admission;
  if (current_ && current_->number == number) {
    admission.job = current_;
    return admission;
  }
  for (const auto& job : ready_) {
    if (job->number == number) admission.job = job;
  }
  if (auto it = waiting_.find(number); it != waiting_.end()) admission.job = it->second;
  if (admission.job) return admission;
  if (waiting_.size() >= kMaxWaiting) return Fail(ErrorCode::kChainFailed, "too many writes came before their predecessors");
  admission.job = std::make_shared<WriteJob>(number, std::move(write));
  waiting_.emplace(number, admission.job);
  TakeReady();
  return admission;
}

void WriteOrder::TakeReady() {
  while (!waiting_.empty() && waiting_.begin()->first == accepted_ + 1) {
    ready_.push_back(std::move(waiting_.begin()->second));
    waiting_.erase(waiting_.begin());
    ++accepted_;
  }
}

std::shared_ptr<WriteJob> WriteOrder::Next() {
  CHECK(!running_);
  if (ready_.empty()) return nullptr;
  current_ = std::move(ready_.front());
  ready_.pop_front();
  running_ = true;
  return current_;
}

WriteJobs WriteOrder::Applied(const std::shared_ptr<WriteJob>& job, const Status& status) {
  CHECK(running_ && job == current_);
  running_ = false;
  current_.reset();
  WriteJobs ended{job};
  if (status) {
    applied_ = job->number;
    return ended;
  }
  broken_ = status.error();
  ended.insert(ended.end(), ready_.begin(), ready_.end());
  ready_.clear();
  for (auto& [number, waiting] : waiting_) ended.push_back(waiting);
  waiting_.clear();
  return ended;
}

bool WriteOrder::IsWaiting(const std::shared_ptr<WriteJob>& job) const {
  auto it = waiting_.find(job->number);
  return it != waiting_.end() && it->second == job;
}

bool WriteOrder::GiveUp(const std::shared_ptr<WriteJob>& job) {
  if (!IsWaiting(job)) return false;
  waiting_.erase(job->number);
  return true;
}

WriteJobs WriteOrder::Freeze() {
  frozen_ = true;
  WriteJobs refused;
  for (auto& [number, job] : waiting_) refused.push_back(job);
  waiting_.clear();
  return refused;
}

}  // namespace shoal
