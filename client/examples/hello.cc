// Writes a file into a Shoal file system and reads it back:  hello CONFIG [PATH]
#include <shoal/file_system.h>

#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s shoal.conf [PATH]\n", argv[0]);
    return 2;
  }
  std::string path = argc > 2 ? argv[2] : "/hello.txt";
  auto fail = [&](const char* what, const shoal::FsError& error) {
    std::fprintf(stderr, "%s: %s (%s)\n", what, error.message.c_str(), error.code.c_str());
    return 1;
  };

  shoal::ConnectOptions options;
  options.config_file = argv[1];
  auto fs = shoal::FileSystem::Connect(options);
  if (!fs) return fail("connect", fs.error());

  auto file = (*fs)->Open(path, shoal::OpenOptions::Write());
  if (!file) return fail("open", file.error());
  if (auto done = file->Append("hello from libshoal\n"); !done) return fail("append", done.error());
  if (auto done = file->Fsync(); !done) return fail("fsync", done.error());
  if (auto done = file->Close(); !done) return fail("close", done.error());

  auto again = (*fs)->Open(path);
  if (!again) return fail("open", again.error());
  char text[100];
  auto size = again->Pread(text, sizeof text, 0);
  if (!size) return fail("pread", size.error());
  std::printf("%.*s", static_cast<int>(*size), text);
  return 0;
}
