/// The signatures of a `webhook-signature` header that are worth checking. Standard Webhooks 1.0.0, "Webhook headers".
struct SignatureCandidates {
  /// Decoded `v1` signatures of the right length.
  private(set) var hmac: [[UInt8]] = []
  /// Decoded `v1a` signatures of the right length.
  private(set) var ed25519: [[UInt8]] = []
  /// Whether any `v1` was there, well-formed or not.
  private(set) var hasHMAC = false
  /// Whether any `v1a` was there, well-formed or not.
  private(set) var hasEd25519 = false

  init(parsing header: String, limit: Int) throws(WebhookVerificationError) {
    let entries = header.utf8.split(separator: UInt8(ascii: " "), maxSplits: limit)
    // With `limit` splits done, what is left over is the entry too many.
    guard entries.count <= limit else { throw .tooManySignatures(limit: limit) }
    for entry in entries {
      guard let comma = entry.firstIndex(of: UInt8(ascii: ",")) else { continue }
      let encoded = entry[entry.index(after: comma)...]
      if entry[..<comma].elementsEqual("v1".utf8) {
        hasHMAC = true
        if let bytes = StrictBase64.decode(encoded), bytes.count == 32 { hmac.append(bytes) }
      } else if entry[..<comma].elementsEqual("v1a".utf8) {
        hasEd25519 = true
        if let bytes = StrictBase64.decode(encoded), bytes.count == 64 { ed25519.append(bytes) }
      }
    }
  }
}
