import Crypto
import Foundation

/// Looks into a PEM certificate and its private key, as far as that goes without a TLS library: that both are DER inside,
/// and that they belong together (RSA, the NIST curves, ed25519).
package enum KeyPairCheck {
  /// What is wrong with them, in words that repeat nothing of them; nil if nothing was found.
  package static func problem(certificate: String, privateKey: String) -> String? {
    if privateKey.contains("-----BEGIN ENCRYPTED") || privateKey.contains("4,ENCRYPTED") {
      return "the private key is encrypted with a passphrase; take that off first: openssl pkey -in FILE"
    }
    if certificate.contains("PRIVATE KEY-----") { return "the certificate contains a private key; give the two apart" }
    let certificates = PEMBlock.all(in: certificate).filter { $0.label == "CERTIFICATE" }
    guard let own = certificates.first else { return "the certificate is not PEM: there is no CERTIFICATE in it" }
    guard certificates.allSatisfy({ DER(whole: $0.bytes)?.tag == DER.sequence }) else {
      return "the certificate is damaged: what is in the PEM is not one"
    }
    guard let key = PEMBlock.all(in: privateKey).first(where: { $0.label.hasSuffix("PRIVATE KEY") }) else {
      return "the private key is not PEM: there is no PRIVATE KEY in it"
    }
    guard let parsed = DER(whole: key.bytes), parsed.tag == DER.sequence else {
      return "the private key is damaged: what is in the PEM is not one"
    }
    let traces = publicTraces(key, parsed)
    if !traces.isEmpty, !traces.contains(where: { own.bytes.range(of: $0) != nil }) {
      return "the private key does not belong to the (first) certificate"
    }
    return nil
  }

  /// Byte strings of which one must be in the certificate of this private key; none if it is of a kind we do not know.
  private static func publicTraces(_ block: PEMBlock, _ key: DER) -> [Data] {
    if let key = try? P256.Signing.PrivateKey(pemRepresentation: block.text) {
      return [key.publicKey.x963Representation, key.publicKey.compressedRepresentation]
    }
    if let key = try? P384.Signing.PrivateKey(pemRepresentation: block.text) {
      return [key.publicKey.x963Representation, key.publicKey.compressedRepresentation]
    }
    if let key = try? P521.Signing.PrivateKey(pemRepresentation: block.text) {
      return [key.publicKey.x963Representation, key.publicKey.compressedRepresentation]
    }
    if block.label == "RSA PRIVATE KEY" { return modulus(key).map { [$0] } ?? [] }
    // PKCS #8 (RFC 5958): version, algorithm, an octet string with the key.
    let parts = key.parts
    guard block.label == "PRIVATE KEY", parts.count >= 3, parts[2].tag == DER.octetString,
      let inner = DER(whole: parts[2].content)
    else { return [] }
    if inner.tag == DER.sequence { return modulus(inner).map { [$0] } ?? [] }
    if inner.tag == DER.octetString, inner.content.count == 32, parts[1].content.starts(with: ed25519Identifier),
      let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: inner.content)
    {
      return [key.publicKey.rawRepresentation]
    }
    return []
  }

  /// PKCS #1 (RFC 8017, A.1.2): version, modulus, …
  private static func modulus(_ key: DER) -> Data? {
    let parts = key.parts
    guard parts.count >= 9, parts[1].tag == DER.integer, parts[1].content.count >= 128 else { return nil }
    return parts[1].content
  }

  /// 1.3.101.112, RFC 8410.
  private static let ed25519Identifier: [UInt8] = [0x06, 0x03, 0x2B, 0x65, 0x70]
}

/// What is between `-----BEGIN …-----` and `-----END …-----`. RFC 7468.
private struct PEMBlock {
  var label: String
  var bytes: Data
  var text: String

  static func all(in pem: String) -> [PEMBlock] {
    var blocks: [PEMBlock] = []
    var label: String?
    var lines: [String] = []
    for line in pem.split(whereSeparator: \.isNewline).map({ $0.trimmingCharacters(in: .whitespaces) }) {
      if line.hasPrefix("-----BEGIN "), line.hasSuffix("-----") {
        label = String(line.dropFirst(11).dropLast(5))
        lines = []
      } else if let name = label, line == "-----END \(name)-----" {
        if let bytes = Data(base64Encoded: lines.joined()) {
          let text = (["-----BEGIN \(name)-----"] + lines + [line]).joined(separator: "\n")
          blocks.append(PEMBlock(label: name, bytes: bytes, text: text))
        }
        label = nil
      } else if label != nil {
        lines.append(line)
      }
    }
    return blocks
  }
}

/// One value of ASN.1's distinguished encoding, X.690.
private struct DER {
  static let integer: UInt8 = 0x02
  static let octetString: UInt8 = 0x04
  static let sequence: UInt8 = 0x30

  let tag: UInt8
  let content: Data

  /// Nil unless `bytes` are one value and nothing else.
  init?(whole bytes: Data) {
    var rest = bytes
    guard let value = DER(from: &rest), rest.isEmpty else { return nil }
    self = value
  }

  /// Takes a value off the front.
  private init?(from bytes: inout Data) {
    guard bytes.count >= 2 else { return nil }
    let tag = bytes.removeFirst()
    var length = Int(bytes.removeFirst())
    if length >= 0x80 {
      let count = length & 0x7F
      guard (1...4).contains(count), bytes.count >= count else { return nil }
      length = 0
      for _ in 0..<count { length = length << 8 | Int(bytes.removeFirst()) }
    }
    guard length <= bytes.count else { return nil }
    self.tag = tag
    content = bytes.prefix(length)
    bytes = bytes.dropFirst(length)
  }

  /// The values inside, as far as they can be read.
  var parts: [DER] {
    var rest = content
    var parts: [DER] = []
    while let part = DER(from: &rest) { parts.append(part) }
    return parts
  }
}
