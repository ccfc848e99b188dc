// libfuse's low-level API in the version that this folder is written for. For the folder's own sources only.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
