#include "tests/fuzz/messages.h"

#include <algorithm>
#include <map>

#include "common/limits.h"
#include "common/proto/chunk.pb.h"
#include "common/proto/control.pb.h"
#include "common/proto/meta.pb.h"
#include "common/result.h"

namespace shoal::fuzz {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;

constexpr int kMaxDepth = 3;
constexpr size_t kMaxIds = 64;

const Message* Find(const std::string& name) {
  // Named, so that the linker keeps them.
  static const Descriptor* all[] = {pb::Attr::descriptor(), pb::Segment::descriptor(), pb::DiskReport::descriptor()};
  CHECK(all[0] && all[1] && all[2]);
  const Descriptor* descriptor = DescriptorPool::generated_pool()->FindMessageTypeByName("shoal.pb." + name);
  return descriptor ? MessageFactory::generated_factory()->GetPrototype(descriptor) : nullptr;
}

// SET_ATTR: SetAttr.
std::string NameOf(pb::Method method) {
  std::string name;
  bool upper = true;
  for (char c : pb::Method_Name(method)) {
    if (c != '_') name += upper ? c : static_cast<char>(c - 'A' + 'a');
    upper = c == '_';
  }
  return name;
}

const Message* Look(pb::Method method, const std::map<int, std::string>& others, const char* suffix) {
  auto other = others.find(method);
  return Find((other == others.end() ? NameOf(method) : other->second) + suffix);
}

}  // namespace

const Message* RequestOf(pb::Method method) { return Look(method, {{pb::RMDIR, "Unlink"}}, "Request"); }

const Message* ResponseOf(pb::Method method) {
  static const std::map<int, std::string> kOthers = {
      {pb::LOOKUP, "Attr"},  {pb::GET_ATTR, "Attr"},  {pb::SET_ATTR, "Attr"},     {pb::MKDIR, "Attr"},
      {pb::MKNOD, "Attr"},   {pb::SYMLINK, "Attr"},   {pb::LINK, "Attr"},         {pb::CREATE, "Open"},
      {pb::RMDIR, "Unlink"}, {pb::SET_XATTR, "Attr"}, {pb::REMOVE_XATTR, "Attr"}, {pb::FALLOCATE, "Attr"}};
  return Look(method, kOthers, "Response");
}

uint64_t MessageMaker::Integer(Input& input) {
  static constexpr uint64_t kEdges[] = {kChunkSize, kChunkSize - 1, kMaxFileSize, kMaxFileSize / kChunkSize,
                                        kBlockSize, UINT32_MAX,     INT64_MAX,    uint64_t{1} << 63,
                                        UINT64_MAX, UINT64_MAX - 1};
  uint8_t how = input.Byte();
  if (how < 64) return how % 16;
  if (how < 160 && !ids_.empty()) return ids_[how % ids_.size()];
  if (how < 192) return kEdges[how % std::size(kEdges)];
  if (how < 224) return input.Number<uint16_t>();
  return how < 240 ? input.Number<uint32_t>() : input.Number<uint64_t>();
}

std::string MessageMaker::Text(Input& input, const Field* field) {
  uint8_t how = input.Byte();
  const bool address = field->name() == "address" || field->name() == "source";
  const auto& words = address ? addresses_ : words_;
  if (address || how < 224) return words.empty() ? std::string() : words[how % words.size()];
  std::string text(input.TakeSized());
  // A string of protobuf is UTF-8, or no message: that is what raw bytes are for.
  if (field->type() == Field::TYPE_STRING) std::ranges::for_each(text, [](char& c) { c &= 0x7f; });
  return text;
}

void MessageMaker::FillField(Input& input, Message& message, const Field* field, int depth) {
  const auto* with = message.GetReflection();
  const bool many = field->is_repeated();
  switch (field->cpp_type()) {
#define SHOAL_FILL(Kind, value) \
  return many ? with->Add##Kind(&message, field, value) : with->Set##Kind(&message, field, value)
    case Field::CPPTYPE_BOOL:
      SHOAL_FILL(Bool, input.Byte() % 2 != 0);
    case Field::CPPTYPE_UINT32:
      SHOAL_FILL(UInt32, static_cast<uint32_t>(Integer(input)));
    case Field::CPPTYPE_UINT64:
      SHOAL_FILL(UInt64, Integer(input));
    case Field::CPPTYPE_INT32:
      SHOAL_FILL(Int32, static_cast<int32_t>(Integer(input)));
    case Field::CPPTYPE_INT64:
      SHOAL_FILL(Int64, static_cast<int64_t>(Integer(input)));
    case Field::CPPTYPE_ENUM:
      SHOAL_FILL(EnumValue, input.Byte() % 5);
    case Field::CPPTYPE_STRING:
      SHOAL_FILL(String, Text(input, field));
#undef SHOAL_FILL
    case Field::CPPTYPE_MESSAGE:
      return FillMessage(input, many ? *with->AddMessage(&message, field) : *with->MutableMessage(&message, field),
                         depth + 1);
    default:
      CHECK(false);
  }
}

void MessageMaker::FillMessage(Input& input, Message& message, int depth) {
  if (depth > kMaxDepth) return;
  const Descriptor* descriptor = message.GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const Field* field = descriptor->field(i);
    uint8_t how = input.Byte();
    int count = how % 4 == 0 ? 0 : field->is_repeated() ? how % 8 : 1;
    if (how == 255 && field->is_repeated()) count = 300;  // more than any list may have
    for (; count > 0; --count) FillField(input, message, field, depth);
  }
}

void MessageMaker::Learn(const Message& answer) {
  std::vector<const Field*> fields;
  const auto* with = answer.GetReflection();
  with->ListFields(answer, &fields);
  for (const Field* field : fields) {
    int count = field->is_repeated() ? with->FieldSize(answer, field) : 1;
    for (int i = 0; i < std::min(count, 8); ++i) {
      if (field->cpp_type() == Field::CPPTYPE_MESSAGE) {
        Learn(field->is_repeated() ? with->GetRepeatedMessage(answer, field, i) : with->GetMessage(answer, field));
      } else if (field->type() == Field::TYPE_UINT64) {
        uint64_t value =
            field->is_repeated() ? with->GetRepeatedUInt64(answer, field, i) : with->GetUInt64(answer, field);
        if (value > 15 && ids_.size() < kMaxIds && std::ranges::find(ids_, value) == ids_.end()) ids_.push_back(value);
      }
    }
  }
}

}  // namespace shoal::fuzz
