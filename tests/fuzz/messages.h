// Protobuf messages out of a fuzz input: bytes as they are, or fields filled one by one, so that most get past parsing.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "common/proto/methods.pb.h"
#include "tests/fuzz/fuzz.h"

namespace shoal::fuzz {

// The request message of a method (SET_ATTR: SetAttrRequest) or its response; null for METHOD_NONE. Lives for ever.
const google::protobuf::Message* RequestOf(pb::Method method);
const google::protobuf::Message* ResponseOf(pb::Method method);

// Fills requests with values that often mean something: ids that the server gave before, words of the target's, limits.
// Owner: one input's run, on its thread.
class MessageMaker {
 public:
  // `addresses` is what fields named address or source get (never arbitrary bytes, which would be looked up in the
  // DNS).
  MessageMaker(std::vector<std::string> words, std::vector<std::string> addresses)
      : words_(std::move(words)), addresses_(std::move(addresses)) {}

  void Fill(Input& input, google::protobuf::Message& message) { FillMessage(input, message, 0); }
  // Remembers the ids in an answer.
  void Learn(const google::protobuf::Message& answer);

 private:
  using Field = google::protobuf::FieldDescriptor;
  void FillMessage(Input& input, google::protobuf::Message& message, int depth);
  void FillField(Input& input, google::protobuf::Message& message, const Field* field, int depth);
  uint64_t Integer(Input& input);
  std::string Text(Input& input, const Field* field);

  std::vector<std::string> words_, addresses_;
  std::vector<uint64_t> ids_;
};

}  // namespace shoal::fuzz
