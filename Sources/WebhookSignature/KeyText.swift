/// The text forms of the three kinds of key, and their lengths. Standard Webhooks, "Signature scheme".
enum KeyText {
  static let hmacPrefix = "whsec_"
  static let privatePrefix = "whsk_"
  static let publicPrefix = "whpk_"

  /// Bytes of an HMAC secret. The specification asks for 24 to 64. Secrets of 16 bytes (128 bits) exist at senders that
  /// predate it and are not weak, so they are accepted; ``SigningKey/generate()`` makes 32.
  static let hmacLengths = 16...64
  static let ed25519SeedLength = 32
  static let ed25519PublicLength = 32

  /// The bytes after a prefix.
  static func bytes(of encoded: Substring.UTF8View) throws(WebhookKeyError) -> [UInt8] {
    guard !encoded.isEmpty else { throw .empty }
    // Longer than any key, so not worth decoding: 64 bytes take 88 characters.
    guard encoded.count <= 1024 else { throw .invalidBase64 }
    guard let bytes = StrictBase64.decode(encoded) else { throw .invalidBase64 }
    return bytes
  }

  static func hmacSecret(_ encoded: Substring.UTF8View) throws(WebhookKeyError) -> [UInt8] {
    let bytes = try bytes(of: encoded)
    guard hmacLengths.contains(bytes.count) else {
      throw .wrongLength(
        byteCount: bytes.count,
        allowed: "\(hmacLengths.lowerBound) to \(hmacLengths.upperBound)"
      )
    }
    return bytes
  }
}
