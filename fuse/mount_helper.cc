// mount.fuse.shoal: what mount(8) runs for `mount -t fuse.shoal SOURCE DIR -o OPTIONS` and for lines of fstab:
//   mount.fuse.shoal SOURCE DIR [-sfnv] [-N namespace] [-o OPTIONS] [-t type]
// Hands all that means something over to `shoal mount`.
#include <libgen.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

// `shoal` of the same build or installation: beside this program, or in ../bin of it, else the one in PATH.
std::vector<std::string> Candidates() {
  std::vector<std::string> found;
  char self[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n > 0) {
    std::string folder(self, static_cast<size_t>(n));
    folder.resize(folder.rfind('/'));
    found.push_back(folder + "/shoal");
    found.push_back(folder + "/../bin/shoal");
  }
  found.insert(found.end(), {"/usr/local/bin/shoal", "/usr/bin/shoal"});
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words{"shoal", "mount"};
  std::vector<std::string> places;
  bool fake = false;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    bool has_value = word == "-o" || word == "-N" || word == "-t";
    if (has_value && i + 1 == argc) {
      std::fprintf(stderr, "mount.fuse.shoal: %s needs a value\n", word.c_str());
      return 1;
    }
    if (word == "-o") {
      words.insert(words.end(), {"-o", argv[++i]});
    } else if (has_value) {
      ++i;
    } else if (word.starts_with('-') && word.size() > 1) {
      fake = fake || word.find('f') != word.npos;
    } else {
      places.push_back(word);
    }
  }
  if (places.size() != 2) {
    std::fprintf(stderr, "usage: mount.fuse.shoal SOURCE DIR [-o OPTIONS]\n"
                         "SOURCE is HOST[:PORT][,HOST...][:/subdir], or none for what /etc/shoal/client.conf says\n");
    return 1;
  }
  if (fake) return 0;  // mount(8) only wants to know whether it would be run
  words.insert(words.end(), places.begin(), places.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  for (const std::string& program : Candidates()) {
    if (access(program.c_str(), X_OK) == 0) execv(program.c_str(), arguments.data());
  }
  execvp("shoal", arguments.data());
  std::fprintf(stderr, "mount.fuse.shoal: cannot run `shoal`: %s; is it installed and in PATH?\n", std::strerror(errno));
  return 1;
}
