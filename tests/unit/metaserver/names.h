// Short forms of the namespace's requests, for tests.
#pragma once

#include <fcntl.h>

#include "tests/unit/metaserver/harness.h"

namespace shoal::meta {

constexpr uint64_t kRoot = 1;

// Makes requests as one user. Owner: a test.
class Names {
 public:
  explicit Names(Harness& harness, uint32_t uid = 0) : h(harness), uid(uid) {}

  template <typename Resp, typename Req>
  Result<Resp> Do(pb::Method method, Req request) {
    h.FillCaller(request.mutable_caller(), uid);
    return h.Call<Resp>(method, request);
  }
  template <typename Req>
  Req Named(uint64_t parent, const std::string& name) {
    Req request;
    request.set_parent(parent);
    request.set_name(name);
    return request;
  }
  static Result<pb::Attr> AttrOf(Result<pb::AttrResponse> response) {
    if (!response) return Fail(response.error());
    return response->attr();
  }

  Result<pb::Attr> Lookup(uint64_t parent, const std::string& name) {
    return AttrOf(Do<pb::AttrResponse>(pb::LOOKUP, Named<pb::LookupRequest>(parent, name)));
  }
  Result<pb::Attr> Stat(uint64_t inode) {
    pb::GetAttrRequest request;
    request.set_inode(inode);
    return AttrOf(Do<pb::AttrResponse>(pb::GET_ATTR, request));
  }
  Result<pb::Attr> SetAttr(pb::SetAttrRequest request) { return AttrOf(Do<pb::AttrResponse>(pb::SET_ATTR, request)); }
  Result<pb::Attr> Chmod(uint64_t inode, uint32_t mode) {
    pb::SetAttrRequest request;
    request.set_inode(inode);
    request.set_mode(mode);
    return SetAttr(request);
  }
  Result<pb::Attr> Chown(uint64_t inode, uint32_t owner, uint32_t group) {
    pb::SetAttrRequest request;
    request.set_inode(inode);
    request.set_uid(owner);
    request.set_gid(group);
    return SetAttr(request);
  }
  Result<pb::Attr> Truncate(uint64_t inode, uint64_t size) {
    pb::SetAttrRequest request;
    request.set_inode(inode);
    request.set_size(size);
    return SetAttr(request);
  }
  Result<pb::OpenResponse> CreateFile(uint64_t parent, const std::string& name, uint32_t mode = 0644,
                                      bool open = false, bool exclusive = false) {
    auto request = Named<pb::CreateRequest>(parent, name);
    request.set_mode(mode);
    request.set_open(open);
    request.set_exclusive(exclusive);
    request.set_open_flags(O_RDWR);
    return Do<pb::OpenResponse>(pb::CREATE, request);
  }
  Result<pb::Attr> Create(uint64_t parent, const std::string& name, uint32_t mode = 0644) {
    auto response = CreateFile(parent, name, mode);
    if (!response) return Fail(response.error());
    return response->attr();
  }
  Result<pb::OpenResponse> Open(uint64_t inode, uint32_t flags) {
    pb::OpenRequest request;
    request.set_inode(inode);
    request.set_flags(flags);
    return Do<pb::OpenResponse>(pb::OPEN, request);
  }
  void Release(uint64_t inode) {
    pb::ReleaseRequest request;
    request.set_session(h.session());
    request.add_inodes(inode);
    CHECK(h.Call<pb::ReleaseResponse>(pb::RELEASE, request).has_value());
  }
  Result<pb::Attr> Mkdir(uint64_t parent, const std::string& name, uint32_t mode = 0755) {
    auto request = Named<pb::MkdirRequest>(parent, name);
    request.set_mode(mode);
    return AttrOf(Do<pb::AttrResponse>(pb::MKDIR, request));
  }
  Result<pb::Attr> Mknod(uint64_t parent, const std::string& name, uint32_t mode, uint64_t rdev = 0) {
    auto request = Named<pb::MknodRequest>(parent, name);
    request.set_mode(mode);
    request.set_rdev(rdev);
    return AttrOf(Do<pb::AttrResponse>(pb::MKNOD, request));
  }
  Result<pb::Attr> Symlink(uint64_t parent, const std::string& name, const std::string& target) {
    auto request = Named<pb::SymlinkRequest>(parent, name);
    request.set_target(target);
    return AttrOf(Do<pb::AttrResponse>(pb::SYMLINK, request));
  }
  Result<std::string> Readlink(uint64_t inode) {
    pb::ReadlinkRequest request;
    request.set_inode(inode);
    auto response = Do<pb::ReadlinkResponse>(pb::READLINK, request);
    if (!response) return Fail(response.error());
    return response->target();
  }
  Result<pb::Attr> Link(uint64_t inode, uint64_t parent, const std::string& name) {
    pb::LinkRequest request;
    request.set_inode(inode);
    request.set_new_parent(parent);
    request.set_new_name(name);
    return AttrOf(Do<pb::AttrResponse>(pb::LINK, request));
  }
  Result<pb::UnlinkResponse> Unlink(uint64_t parent, const std::string& name) {
    return Do<pb::UnlinkResponse>(pb::UNLINK, Named<pb::UnlinkRequest>(parent, name));
  }
  Result<pb::UnlinkResponse> Rmdir(uint64_t parent, const std::string& name) {
    return Do<pb::UnlinkResponse>(pb::RMDIR, Named<pb::UnlinkRequest>(parent, name));
  }
  Result<pb::RenameResponse> Rename(uint64_t parent, const std::string& name, uint64_t new_parent,
                                    const std::string& new_name, uint32_t flags = 0) {
    auto request = Named<pb::RenameRequest>(parent, name);
    request.set_new_parent(new_parent);
    request.set_new_name(new_name);
    request.set_flags(flags);
    return Do<pb::RenameResponse>(pb::RENAME, request);
  }
  Result<pb::ReadDirResponse> ReadDir(uint64_t inode, uint64_t cookie, uint32_t max_entries, bool with_attr = false) {
    pb::ReadDirRequest request;
    request.set_inode(inode);
    request.set_cookie(cookie);
    request.set_max_entries(max_entries);
    request.set_max_bytes(1 << 20);
    request.set_with_attr(with_attr);
    return Do<pb::ReadDirResponse>(pb::READ_DIR, request);
  }
  // All names, in pages of `page` entries.
  std::vector<std::string> List(uint64_t inode, uint32_t page = 100) {
    std::vector<std::string> names;
    uint64_t cookie = 0;
    while (true) {
      auto part = ReadDir(inode, cookie, page);
      CHECK(part.has_value());
      for (const auto& entry : part->entries()) {
        names.push_back(entry.name());
        CHECK(entry.cookie() > cookie);
        cookie = entry.cookie();
      }
      if (part->end()) return names;
    }
  }
  Result<pb::Attr> SetXattr(uint64_t inode, const std::string& name, const std::string& value, uint32_t flags = 0) {
    pb::SetXattrRequest request;
    request.set_inode(inode);
    request.set_name(name);
    request.set_value(value);
    request.set_flags(flags);
    return AttrOf(Do<pb::AttrResponse>(pb::SET_XATTR, request));
  }
  Result<std::string> GetXattr(uint64_t inode, const std::string& name) {
    pb::GetXattrRequest request;
    request.set_inode(inode);
    request.set_name(name);
    auto response = Do<pb::GetXattrResponse>(pb::GET_XATTR, request);
    if (!response) return Fail(response.error());
    return response->value();
  }

  Harness& h;
  uint32_t uid;
};

inline ErrorCode CodeOf(const auto& result) { return result ? ErrorCode::kOk : result.error().code; }

}  // namespace shoal::meta
