import Crypto

/// A key that signs webhooks: an HMAC-SHA256 secret (`whsec_…`) or an ed25519 private key (`whsk_…`).
///
/// A value of this type never shows its secret when printed, dumped, interpolated or mirrored; the only way to the text
/// is ``encoded``.
///
/// Source: Standard Webhooks 1.0.0, "Signature scheme".
public struct SigningKey: Sendable {
  enum Material: Sendable {
    case hmac(SymmetricKey)
    case ed25519(Curve25519.Signing.PrivateKey)
  }

  let material: Material

  /// Reads a key from its text form.
  ///
  /// - Parameter text: `whsec_` and the base64 of 16 to 64 bytes; or `whsk_` and the base64 of an ed25519 seed (32
  ///   bytes) or of seed and public key (64 bytes). The specification asks for at least 24 bytes in a `whsec_` secret;
  ///   16 are accepted because such secrets are in use and a 128-bit HMAC key is not weak. Base64 must be canonical:
  ///   standard alphabet, padded, unused bits zero.
  /// - Throws: ``WebhookKeyError``, which never contains any part of the key.
  public init(parsing text: String) throws(WebhookKeyError) {
    if text.hasPrefix(KeyText.hmacPrefix) {
      let secret = try KeyText.hmacSecret(text.dropFirst(KeyText.hmacPrefix.count).utf8)
      material = .hmac(SymmetricKey(data: secret))
    } else if text.hasPrefix(KeyText.privatePrefix) {
      material = .ed25519(try Self.privateKey(text.dropFirst(KeyText.privatePrefix.count).utf8))
    } else {
      throw .unknownPrefix(expected: [KeyText.hmacPrefix, KeyText.privatePrefix])
    }
  }

  /// A new HMAC-SHA256 key: 32 bytes from the system's secure random generator.
  public static func generate() -> SigningKey {
    SigningKey(material: .hmac(SymmetricKey(size: .bits256)))
  }

  /// A new ed25519 key pair from the system's secure random generator.
  public static func generateEd25519() -> SigningKey {
    SigningKey(material: .ed25519(Curve25519.Signing.PrivateKey()))
  }

  /// **The secret itself**, in the form that ``init(parsing:)`` reads: `whsec_…`, or `whsk_…` with seed and public key
  /// (64 bytes). Store it, show it once to whoever configures the receiver, never log it.
  public var encoded: String {
    switch material {
    case .hmac(let key):
      return KeyText.hmacPrefix + key.withUnsafeBytes { StrictBase64.encode($0) }
    case .ed25519(let key):
      let pair = [UInt8](key.rawRepresentation) + [UInt8](key.publicKey.rawRepresentation)
      return KeyText.privatePrefix + pair.withUnsafeBytes { StrictBase64.encode($0) }
    }
  }

  /// The public key as `whpk_…`, to give to receivers; nil for an HMAC key, which has no public half.
  public var publicKey: String? {
    switch material {
    case .hmac: nil
    case .ed25519(let key): VerificationKey(material: .ed25519(key.publicKey)).publicText
    }
  }

  private init(material: Material) {
    self.material = material
  }

  private static func privateKey(
    _ encoded: Substring.UTF8View
  ) throws(WebhookKeyError) -> Curve25519.Signing.PrivateKey {
    let bytes = try KeyText.bytes(of: encoded)
    let seedLength = KeyText.ed25519SeedLength
    guard bytes.count == seedLength || bytes.count == seedLength + KeyText.ed25519PublicLength else {
      throw .wrongLength(byteCount: bytes.count, allowed: "32 (seed) or 64 (seed and public key)")
    }
    let key: Curve25519.Signing.PrivateKey
    do {
      key = try Curve25519.Signing.PrivateKey(rawRepresentation: bytes[..<seedLength])
    } catch {
      throw .invalidKey
    }
    // Signing with a public half that belongs to another seed would leak the private key, so a mismatch is an error
    // even though the public half is not otherwise needed.
    guard bytes.count == seedLength || key.publicKey.rawRepresentation.elementsEqual(bytes[seedLength...]) else {
      throw .publicKeyMismatch
    }
    return key
  }
}

extension SigningKey: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// The kind of key, without its secret.
  public var description: String {
    switch material {
    case .hmac: "SigningKey(whsec_ redacted)"
    case .ed25519: "SigningKey(whsk_ redacted)"
    }
  }

  /// The same as ``description``.
  public var debugDescription: String { description }

  /// Empty, so that `dump` and logging by reflection reveal nothing.
  public var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}
