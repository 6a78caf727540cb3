import Crypto
import Foundation
import SecretSealing
import WebhookSignature

extension FuzzTarget {
  /// Verifies exactly what a straightforward reading of Standard Webhooks does: one of the signatures is, as text, the one that
  /// belongs to this id, time and body.
  static let signature = FuzzTarget(name: "signature") { random in
    let now = 1_700_000_000
    var id = "msg_\(random.below(1000))"
    var timestamp = "\(now + random.below(700) - 350)"
    var body = random.bytes(0...40)
    let usesEd25519 = random.oneIn(8)  // a hundred times as slow
    let signer = usesEd25519 ? edSigner : hmacSigner
    var signature = signer.signature(id: id, timestamp: Int(timestamp) ?? now, body: body)
    let words = [
      "v1,", "v1a,", "v2,", ",", " ", "  ", signature, "=", "A", signature + " ",
      "v1," + String(repeating: "A", count: 43) + "=",
    ]
    switch random.below(8) {
    case 0: id = random.mutatedText(id, [".", "msg_"])
    case 1: timestamp = random.mutatedText(timestamp, ["0", "-", "+", " ", "9999999999999", "1e9"])
    case 2: body = random.mutated(String(decoding: body, as: UTF8.self), ["{}", "\n"])
    case 3: break
    default: signature = random.mutatedText(signature, words)
    }
    var headers = [("Webhook-Id", id), ("webhook-timestamp", timestamp), ("WEBHOOK-SIGNATURE", signature)]
    if random.oneIn(16) {
      headers.append(random.pick([("webhook-id", id), ("webhook-id-2", ""), ("Webhook-Signature", "v1,x")]))
    }
    if random.oneIn(16) { headers.remove(at: random.below(headers.count)) }
    let verifies: Bool
    do {
      try verifier.verify(
        headers: headers.map { (name: $0.0, value: $0.1) },
        body: body,
        now: Date(timeIntervalSince1970: Double(now))
      )
      verifies = true
    } catch {
      verifies = false
    }
    let reference = ReferenceVerifier.verifies(headers, body, now: now)
    try require(
      verifies == reference,
      verifies ? "verified, and the reference does not" : "refused, and the reference does not",
      headers
    )
    return verifies
  }

  /// Reads exactly the texts that it writes, of the lengths that keys have.
  static let signingKey = FuzzTarget(name: "signing-key") { random in
    let count = random.pick([32, 32, 64, 16, 24, 15, 33, 65])
    let prefix = random.pick(["whsec_", "whsk_", "whpk_"])
    let text = random.mutatedText(
      prefix + Data(random.bytes(count...count)).base64EncodedString(),
      ["whsec_", "whsk_", "whpk_", "=", "==", "A", "-", "_", "\n"]
    )
    // The bytes of the one canonical base64 text.
    let encoded = text.utf8.contains(0) ? "" : String(text.dropFirst(text.hasPrefix("whsec_") ? 6 : 5))
    let bytes = Data(base64Encoded: encoded).flatMap { $0.base64EncodedString() == encoded ? $0 : nil }
    if let key = try? SigningKey(parsing: text) {
      try require(bytes != nil, "read from what is not canonical base64", text)
      try require(!"\(key)\(String(reflecting: key))".contains(encoded), "shows itself", text)
      let again = try SigningKey(parsing: key.encoded)
      try require(again.encoded == key.encoded && again.publicKey == key.publicKey, "does not read back", text)
      try require(text.hasPrefix("whsk_") || key.encoded == text, "writes another text", text)
      try require(text.hasPrefix("whsk_") || (16...64).contains(bytes?.count ?? 0), "a length that no key has", text)
      return true
    }
    if (try? VerificationKey(parsing: text)) != nil {
      try require(text.hasPrefix("whpk_") && bytes?.count == 32, "a public key of another form", text)
      return true
    }
    let isHMAC = text.hasPrefix("whsec_") && (16...64).contains(bytes?.count ?? 0)
    try require(!isHMAC, "refused, though it is a key", text)
    return false
  }

  /// Opens to what was sealed, for what it was sealed for, or not at all.
  static let sealedText = FuzzTarget(name: "sealed-text") { random in
    let plain = random.text(0...20)
    let sealed = try keyring.seal(plain, for: .secret(endpoint: 7))
    let stored = random.mutatedText(sealed, ["sealed:", "v1:", "v2:", ":", keyring.sealingKeyID ?? "", "=", "A", "\n"])
    let use: SealedUse = random.oneIn(8) ? .secret(endpoint: 8) : .secret(endpoint: 7)
    do {
      let opened = try keyring.open(stored, for: use)
      if stored.hasPrefix("sealed:") {
        try require(opened == plain, "opened to something else", stored)
        if case .secret(8) = use { throw FuzzFinding("opened for another endpoint", stored) }
      } else {
        try require(opened == stored, "what is in plain was changed", stored)
      }
      _ = keyring.isSealed(stored)
      return true
    } catch let error as SealingError {
      try require(
        plain.isEmpty || plain.utf8.count < 8 || !"\(error)".contains(plain),
        "the error shows the value",
        stored
      )
      // Keys come from files and the environment.
      do {
        _ = try Keyring(parsing: [random.mutatedText(keyText, ["=", "\n", ","])])
      } catch {
        try require(!"\(error)".contains(keyText), "the error shows the key", stored)
      }
      return false
    }
  }

  private static let hmacKey = SymmetricKey(data: (0..<32).map { UInt8($0) })
  private static let edKey = try! Curve25519.Signing.PrivateKey(rawRepresentation: (100..<132).map { UInt8($0) })
  private static let hmacSigner = WebhookSigner(keys: [
    try! SigningKey(parsing: "whsec_" + hmacKey.withUnsafeBytes { Data($0) }.base64EncodedString())
  ])
  private static let edSigner = WebhookSigner(keys: [
    try! SigningKey(parsing: "whsk_" + edKey.rawRepresentation.base64EncodedString())
  ])
  private static let verifier = WebhookVerifier(keys: [
    try! VerificationKey(parsing: "whsec_" + hmacKey.withUnsafeBytes { Data($0) }.base64EncodedString()),
    try! VerificationKey(parsing: "whpk_" + edKey.publicKey.rawRepresentation.base64EncodedString()),
  ])
  private static let keyText = Data((0..<32).map { UInt8($0 ^ 0x5A) }).base64EncodedString()
  private static let keyring = try! Keyring(parsing: [keyText])

  private enum ReferenceVerifier {
    static func verifies(_ headers: [(String, String)], _ body: [UInt8], now: Int) -> Bool {
      func value(_ name: String) -> String? {
        let values = headers.filter { $0.0.lowercased() == name }
        return values.count == 1 ? values[0].1 : nil
      }
      guard let id = value("webhook-id"), let timestamp = value("webhook-timestamp"),
        let signature = value("webhook-signature")
      else { return false }
      guard (1...256).contains(id.utf8.count), !id.utf8.contains(0x2E), (1...4096).contains(signature.utf8.count) else {
        return false
      }
      guard let seconds = Int(timestamp), Array(String(seconds).utf8) == Array(timestamp.utf8), seconds >= 0,
        abs(now - seconds) <= 300
      else {
        return false
      }
      let content = Data("\(id).\(timestamp).".utf8) + Data(body)
      let entries = signature.utf8.split(separator: 0x20).map(Array.init)
      guard entries.count <= 32 else { return false }
      let expected = Array(
        ("v1," + Data(HMAC<SHA256>.authenticationCode(for: content, using: hmacKey)).base64EncodedString()).utf8
      )
      return entries.contains { entry in
        if entry == expected { return true }
        guard entry.starts(with: "v1a,".utf8) else { return false }
        let encoded = String(decoding: entry.dropFirst(4), as: UTF8.self)
        guard let bytes = Data(base64Encoded: encoded), bytes.count == 64, bytes.base64EncodedString() == encoded else {
          return false
        }
        return edKey.publicKey.isValidSignature(bytes, for: content)
      }
    }
  }
}
