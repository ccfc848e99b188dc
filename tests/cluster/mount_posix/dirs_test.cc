// Listings: completeness under change, seeking, large directories.
#include <dirent.h>
#include <sys/wait.h>

#include <map>
#include <memory>
#include <set>

#include "tests/cluster/mount_posix/posix_fixture.h"

namespace shoal::posix_test {
namespace {

struct Closer {
  void operator()(DIR* dir) const { closedir(dir); }
};
using Dir = std::unique_ptr<DIR, Closer>;

class Dirs : public PosixTest {
 protected:
  Dir Open(const std::string& name = "") {
    Dir dir(opendir((name.empty() ? dir_ : P(name)).c_str()));
    EXPECT_TRUE(dir) << std::strerror(errno);
    return dir;
  }
  // Names but "." and "..", each of which must come once.
  static std::set<std::string> Rest(DIR* dir) {
    std::multiset<std::string> names;
    errno = 0;
    while (dirent* entry = readdir(dir)) names.insert(entry->d_name);
    EXPECT_EQ(errno, 0);
    std::set<std::string> unique(names.begin(), names.end());
    EXPECT_EQ(unique.size(), names.size()) << "a name came twice";
    unique.erase(".");
    unique.erase("..");
    return unique;
  }
  std::set<std::string> Make(int count) {
    std::set<std::string> names;
    for (int i = 0; i < count; ++i) {
      std::string name = "file-" + std::to_string(i);
      int fd = open(P(name).c_str(), O_CREAT | O_WRONLY, 0644);
      EXPECT_GE(fd, 0);
      close(fd);
      names.insert(name);
    }
    return names;
  }
};

TEST_F(Dirs, EmptyHasTwoEntries) {
  Dir dir = Open();
  std::map<std::string, ino_t> entries;
  while (dirent* entry = readdir(dir.get())) entries[entry->d_name] = entry->d_ino;
  EXPECT_EQ(entries.size(), 2u);
  struct stat st {};
  ASSERT_OK(stat(dir_.c_str(), &st));
  EXPECT_EQ(entries["."], st.st_ino);
}

TEST_F(Dirs, TypesAndNumbers) {
  Put("f", "");
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  ASSERT_OK(symlink("f", P("l").c_str()));
  Dir dir = Open();
  std::map<std::string, int> types;
  while (dirent* entry = readdir(dir.get())) {
    types[entry->d_name] = entry->d_type;
    if (entry->d_name[0] != '.') {
      EXPECT_EQ(entry->d_ino, Stat(entry->d_name).st_ino);
    }
  }
  EXPECT_EQ(types["f"], DT_REG);
  EXPECT_EQ(types["d"], DT_DIR);
  EXPECT_EQ(types["l"], DT_LNK);
}

TEST_F(Dirs, ThreeThousandNames) {
  std::set<std::string> names = Make(3000);
  Dir dir = Open();
  EXPECT_EQ(Rest(dir.get()), names);
  rewinddir(dir.get());
  EXPECT_EQ(Rest(dir.get()), names);
}

TEST_F(Dirs, RemovingWhileListing) {
  Make(3000);
  Dir dir = Open();
  int removed = 0;
  while (dirent* entry = readdir(dir.get())) {
    if (entry->d_name[0] == '.') continue;
    ASSERT_OK(unlink(P(entry->d_name).c_str())) << entry->d_name;
    ++removed;
  }
  EXPECT_EQ(removed, 3000);  // as rm -r does it
  Dir again = Open();
  EXPECT_EQ(Rest(again.get()), std::set<std::string>());
  EXPECT_OK(rmdir(dir_.c_str()));
  ASSERT_OK(mkdir(dir_.c_str(), 0755));
}

TEST_F(Dirs, AddingWhileListingLosesNothing) {
  std::set<std::string> names = Make(1500);
  Dir dir = Open();
  std::multiset<std::string> seen;
  int made = 0;
  while (dirent* entry = readdir(dir.get())) {
    if (std::string(entry->d_name).starts_with("file-")) seen.insert(entry->d_name);
    if (made < 1000) Put("new-" + std::to_string(made++), "");
  }
  for (const std::string& name : names) EXPECT_EQ(seen.count(name), 1u) << name;
  Dir again = Open();
  EXPECT_EQ(Rest(again.get()).size(), 2500u);
}

TEST_F(Dirs, SeekGoesBackToTheSameEntry) {
  Make(500);
  Dir dir = Open();
  std::vector<std::pair<long, std::string>> places;
  for (;;) {
    long place = telldir(dir.get());
    dirent* entry = readdir(dir.get());
    if (!entry) break;
    places.emplace_back(place, entry->d_name);
  }
  ASSERT_EQ(places.size(), 502u);
  for (size_t i = places.size(); i-- > 0;) {
    if (i % 37) continue;
    seekdir(dir.get(), places[i].first);
    dirent* entry = readdir(dir.get());
    ASSERT_TRUE(entry);
    EXPECT_EQ(entry->d_name, places[i].second);
  }
}

TEST_F(Dirs, ListingShowsNewAttributes) {
  Make(50);
  { Dir dir = Open(); Rest(dir.get()); }
  for (int i = 0; i < 50; ++i) {
    std::string name = "file-" + std::to_string(i);
    Put(name, std::string(static_cast<size_t>(i), 'x'));
    { Dir dir = Open(); Rest(dir.get()); }  // brings attributes along
    EXPECT_EQ(Stat(name).st_size, i);
  }
}

TEST_F(Dirs, RewoundListingShowsChanges) {
  Make(3);
  Dir dir = Open();
  EXPECT_EQ(Rest(dir.get()).size(), 3u);
  ASSERT_OK(unlink(P("file-0").c_str()));
  Put("other", "");
  rewinddir(dir.get());
  EXPECT_EQ(Rest(dir.get()), (std::set<std::string>{"file-1", "file-2", "other"}));
}

TEST_F(Dirs, RemovedDirectoryThatIsOpen) {
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  File fd(P("d"), O_RDONLY | O_DIRECTORY);
  ASSERT_OK(rmdir(P("d").c_str()));
  EXPECT_ERRNO(openat(fd, "x", O_CREAT | O_RDWR, 0644), ENOENT);
}

TEST_F(Dirs, FsyncOfADirectory) {
  Put("f", "x");
  File fd(dir_, O_RDONLY | O_DIRECTORY);
  EXPECT_OK(fsync(fd));
}

TEST_F(Dirs, DeepTree) {
  std::string path = dir_;
  for (int i = 0; i < 60; ++i) {
    path += "/d" + std::to_string(i);
    ASSERT_OK(mkdir(path.c_str(), 0755));
  }
  struct stat st {};
  EXPECT_OK(stat(path.c_str(), &st));
  File fd(path, O_RDONLY | O_DIRECTORY);
  EXPECT_OK(fchdir(fd));
  char* where = getcwd(nullptr, 0);
  ASSERT_TRUE(where);
  EXPECT_TRUE(std::string(where).ends_with("/d58/d59"));
  free(where);
  ASSERT_OK(chdir("/"));
}

// What is held open keeps its attributes, and lists nothing.
TEST_F(Dirs, RemovedWhileOpen) {
  ASSERT_OK(mkdir(P("removed").c_str(), 0750));
  ASSERT_OK(mkdir(P("replaced").c_str(), 0755));
  ASSERT_OK(mkdir(P("new").c_str(), 0755));
  int removed = open(P("removed").c_str(), O_RDONLY | O_DIRECTORY);
  int replaced = open(P("replaced").c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_GE(removed, 0);
  ASSERT_GE(replaced, 0);
  struct stat before {}, after {};
  ASSERT_OK(fstat(removed, &before));
  ASSERT_OK(rmdir(P("removed").c_str()));
  ASSERT_OK(rename(P("new").c_str(), P("replaced").c_str()));
  ASSERT_OK(fstat(removed, &after));
  EXPECT_EQ(after.st_nlink, 0u);
  EXPECT_EQ(after.st_mode, before.st_mode);
  EXPECT_EQ(after.st_ino, before.st_ino);
  EXPECT_ERRNO(openat(removed, "x", O_CREAT | O_WRONLY, 0600), ENOENT);
  Dir dir(fdopendir(removed));
  EXPECT_EQ(readdir(dir.get()), nullptr);
  ASSERT_OK(fstat(replaced, &after));
  EXPECT_EQ(after.st_nlink, 0u);
  close(replaced);
}

TEST_F(Dirs, RemovedWhileWorkingThere) {
  ASSERT_OK(mkdir(P("here").c_str(), 0755));
  pid_t child = fork();
  if (child == 0) {
    struct stat st {};
    bool ok = chdir(P("here").c_str()) == 0 && rmdir(P("here").c_str()) == 0 && stat(".", &st) == 0 && st.st_nlink == 0;
    DIR* dir = opendir(".");
    _exit(ok && dir && !readdir(dir) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(Dirs, PipeRemovedWhileOpen) {
  ASSERT_OK(mkfifo(P("pipe").c_str(), 0600));
  int fd = open(P("pipe").c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  ASSERT_OK(unlink(P("pipe").c_str()));
  struct stat st {};
  ASSERT_OK(fstat(fd, &st));
  EXPECT_EQ(st.st_nlink, 0u);
  EXPECT_TRUE(S_ISFIFO(st.st_mode));
  close(fd);
}

}  // namespace
}  // namespace shoal::posix_test
