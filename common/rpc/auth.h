// The challenge and response that opens every connection: both ends prove that they hold the cluster key by an
// HMAC-SHA256 (RFC 2104) over fresh nonces of both, so that nothing can be replayed or reflected.
#pragma once

#include <string>

#include "common/rpc/rpc.h"

namespace shoal::rpc_internal {

inline constexpr size_t kNonceSize = 32;

std::string MakeNonce();
std::string ServerProof(const ClusterKey& key, const std::string& client_nonce, const std::string& server_nonce, pb::Role client_role);
std::string ClientProof(const ClusterKey& key, const std::string& client_nonce, const std::string& server_nonce, pb::Role client_role);
// In constant time.
bool SameProof(const std::string& a, const std::string& b);

}  // namespace shoal::rpc_internal
