import Foundation

/// A sealed value as it is stored: `sealed:v1:<key id>:<base64 of nonce, ciphertext and tag>`.
struct SealedText: CustomStringConvertible {
  private static let prefix = "sealed:"
  private static let version = "v1"

  let keyID: String
  let bytes: Data

  init(keyID: String, bytes: Data) {
    self.keyID = keyID
    self.bytes = bytes
  }

  init?(parsing text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 4, parts[0] + ":" == Self.prefix, parts[1] == Self.version, parts[2].utf8.count == 8,
      let bytes = Data(base64Encoded: String(parts[3]))
    else { return nil }
    keyID = String(parts[2])
    self.bytes = bytes
  }

  /// Whatever begins like one is taken for one: what cannot be read must not be mistaken for a secret in plain.
  static func isSealed(_ text: String) -> Bool { text.hasPrefix(prefix) }

  var description: String { "\(Self.prefix)\(Self.version):\(keyID):\(bytes.base64EncodedString())" }
}
