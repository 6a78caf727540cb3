import Crypto

/// A key that verifies webhooks: the shared HMAC-SHA256 secret (`whsec_…`) or an ed25519 public key (`whpk_…`).
///
/// A value of this type never shows its key when printed, dumped, interpolated or mirrored.
///
/// Source: Standard Webhooks 1.0.0, "Signature scheme".
public struct VerificationKey: Sendable {
  enum Material: Sendable {
    case hmac(SymmetricKey)
    case ed25519(Curve25519.Signing.PublicKey)
  }

  let material: Material

  /// Reads a key from its text form.
  ///
  /// - Parameter text: `whsec_` and the base64 of 16 to 64 bytes, or `whpk_` and the base64 of 32 bytes; canonical
  ///   base64 only. A private `whsk_` key is refused, because it has no place at a receiver.
  /// - Throws: ``WebhookKeyError``, which never contains any part of the key.
  public init(parsing text: String) throws(WebhookKeyError) {
    if text.hasPrefix(KeyText.hmacPrefix) {
      let secret = try KeyText.hmacSecret(text.dropFirst(KeyText.hmacPrefix.count).utf8)
      material = .hmac(SymmetricKey(data: secret))
    } else if text.hasPrefix(KeyText.publicPrefix) {
      material = .ed25519(try Self.publicKey(text.dropFirst(KeyText.publicPrefix.count).utf8))
    } else if text.hasPrefix(KeyText.privatePrefix) {
      throw .privateKeyForVerification
    } else {
      throw .unknownPrefix(expected: [KeyText.hmacPrefix, KeyText.publicPrefix])
    }
  }

  /// The key that verifies what `key` signs: the same secret for HMAC, the public half for ed25519.
  public init(_ key: SigningKey) {
    switch key.material {
    case .hmac(let secret): material = .hmac(secret)
    case .ed25519(let pair): material = .ed25519(pair.publicKey)
    }
  }

  init(material: Material) {
    self.material = material
  }

  /// `whpk_…`, or nil for an HMAC secret.
  var publicText: String? {
    guard case .ed25519(let key) = material else { return nil }
    return KeyText.publicPrefix + [UInt8](key.rawRepresentation).withUnsafeBytes { StrictBase64.encode($0) }
  }

  private static func publicKey(
    _ encoded: Substring.UTF8View
  ) throws(WebhookKeyError) -> Curve25519.Signing.PublicKey {
    let bytes = try KeyText.bytes(of: encoded)
    guard bytes.count == KeyText.ed25519PublicLength else {
      throw .wrongLength(byteCount: bytes.count, allowed: "\(KeyText.ed25519PublicLength)")
    }
    do {
      return try Curve25519.Signing.PublicKey(rawRepresentation: bytes)
    } catch {
      throw .invalidKey
    }
  }
}

extension VerificationKey: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// The kind of key, without its secret.
  public var description: String {
    switch material {
    case .hmac: "VerificationKey(whsec_ redacted)"
    case .ed25519: "VerificationKey(whpk_)"
    }
  }

  /// The same as ``description``.
  public var debugDescription: String { description }

  /// Empty, so that `dump` and logging by reflection reveal nothing.
  public var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}
