/// Why a text is not a usable webhook key. Safe to show and to log: no case carries any part of the key.
public enum WebhookKeyError: Error, Hashable, Sendable {
  /// The text does not start with a prefix that this kind of key may have.
  case unknownPrefix(expected: [String])
  /// Nothing follows the prefix.
  case empty
  /// What follows the prefix is not canonical base64 (RFC 4648 §4: standard alphabet, padded, no whitespace, unused
  /// bits zero).
  case invalidBase64
  /// The decoded key has `byteCount` bytes; only the counts in `allowed` (bytes, as text) are accepted.
  case wrongLength(byteCount: Int, allowed: String)
  /// The second half of a 64-byte `whsk_` key is not the public key that belongs to its first half.
  case publicKeyMismatch
  /// The bytes are not an ed25519 key.
  case invalidKey
  /// A private `whsk_` key was given where a receiver needs the public `whpk_` key.
  case privateKeyForVerification
}

extension WebhookKeyError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .unknownPrefix(let expected):
      "a webhook key starts with \(expected.joined(separator: " or "))"
    case .empty:
      "the webhook key is empty after its prefix"
    case .invalidBase64:
      "the webhook key is not canonical base64 (standard alphabet, with padding, no spaces or line breaks)"
    case .wrongLength(let byteCount, let allowed):
      "the webhook key decodes to \(byteCount) bytes; allowed: \(allowed)"
    case .publicKeyMismatch:
      "the public half of the ed25519 key does not belong to its private half"
    case .invalidKey:
      "the webhook key is not a valid ed25519 key"
    case .privateKeyForVerification:
      "this is a private signing key (whsk_); verification needs the public key (whpk_)"
    }
  }
}
