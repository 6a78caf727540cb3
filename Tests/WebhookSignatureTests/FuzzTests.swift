import Foundation
import Testing

@testable import WebhookSignature

@Suite struct FuzzTests {
  @Test(arguments: [1, 2, 3, 4] as [UInt64])
  func randomBytesNeverTrapAndNeverVerify(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let hmac = SigningKey.generate()
    let verifier = WebhookVerifier(keys: [VerificationKey(hmac), VerificationKey(.generateEd25519())])
    let now = Date(timeIntervalSince1970: 1000)
    for _ in 0..<2000 {
      let noise = String(decoding: random.bytes(upTo: 120), as: UTF8.self)
      _ = try? SigningKey(parsing: noise)
      _ = try? SigningKey(parsing: ["whsec_", "whsk_"].randomElement(using: &random)! + noise)
      _ = try? VerificationKey(parsing: "whpk_" + noise)
      let timestamp = Bool.random(using: &random) ? "1000" : noise
      let signature = mutated(
        ["v1,", "v1a,", "v1", ",", " "].randomElement(using: &random)! + noise,
        using: &random
      )
      #expect(throws: WebhookVerificationError.self) {
        try verifier.verify(
          id: "id" + noise,
          timestamp: timestamp,
          signature: signature,
          body: random.bytes(upTo: 64),
          now: now
        )
      }
    }
  }

  @Test(arguments: [11, 12] as [UInt64])
  func mutatedSignaturesNeverVerify(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let keys = [SigningKey.generate(), .generateEd25519()]
    let signer = WebhookSigner(keys: keys)
    let verifier = WebhookVerifier(keys: keys.map { VerificationKey($0) })
    for _ in 0..<300 {
      let body = random.bytes(upTo: 64)
      for signature in signer.signature(id: "a", timestamp: 1000, body: body).split(separator: " ").map(String.init) {
        let changed = mutated(signature, using: &random)
        // Spaces around a signature are no part of it.
        guard changed.trimmingCharacters(in: .init(charactersIn: " ")) != signature else { continue }
        // A change may also split off a stray entry and leave the signature whole.
        guard !changed.split(separator: " ").contains(Substring(signature)) else { continue }
        #expect(throws: WebhookVerificationError.self) {
          try verifier.verify(
            id: "a",
            timestamp: "1000",
            signature: changed,
            body: body,
            now: Date(timeIntervalSince1970: 1000)
          )
        }
      }
    }
  }

  @Test(arguments: [21, 22] as [UInt64])
  func base64AgreesWithFoundationAndIsCanonical(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    for _ in 0..<2000 {
      let bytes = random.bytes(upTo: 70)
      let text = bytes.withUnsafeBytes { StrictBase64.encode($0) }
      #expect(text == Data(bytes).base64EncodedString())
      #expect(StrictBase64.decode(text.utf8) == bytes)
      // Whatever decodes, decodes to bytes whose encoding is that very text.
      let changed = mutated(text, using: &random)
      if let decoded = StrictBase64.decode(changed.utf8) {
        #expect(decoded.withUnsafeBytes { StrictBase64.encode($0) } == changed)
      }
    }
  }

  private func mutated(_ text: String, using random: inout SeededGenerator) -> String {
    var bytes = Array(text.utf8)
    guard !bytes.isEmpty else { return text }
    let index = bytes.indices.randomElement(using: &random)!
    switch Int.random(in: 0..<4, using: &random) {
    case 0: bytes[index] ^= 1 << UInt8.random(in: 0..<7, using: &random)
    case 1: bytes.remove(at: index)
    case 2: bytes.insert(UInt8.random(in: 32...126, using: &random), at: index)
    default: bytes.swapAt(index, bytes.indices.randomElement(using: &random)!)
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
