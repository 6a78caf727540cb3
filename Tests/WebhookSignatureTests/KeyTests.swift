import Foundation
import Testing
import WebhookSignature

@Suite struct KeyTests {
  static func text(_ prefix: String, _ byteCount: Int) -> String {
    prefix + Data(repeating: 0xA5, count: byteCount).base64EncodedString()
  }

  @Test(arguments: [16, 24, 32, 63, 64])
  func hmacSecretOfAllowedLengthIsAccepted(byteCount: Int) throws {
    let text = Self.text("whsec_", byteCount)
    #expect(try SigningKey(parsing: text).encoded == text)
    _ = try VerificationKey(parsing: text)
  }

  @Test(arguments: [
    ("", WebhookKeyError.unknownPrefix(expected: ["whsec_", "whsk_"])),
    ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", .unknownPrefix(expected: ["whsec_", "whsk_"])),
    (" whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", .unknownPrefix(expected: ["whsec_", "whsk_"])),
    ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", .unknownPrefix(expected: ["whsec_", "whsk_"])),
    ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", .unknownPrefix(expected: ["whsec_", "whsk_"])),
    ("whsec_", .empty),
    ("whsk_", .empty),
    ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", .invalidBase64),
    ("whsec_MfKQ9r8GKYqr TwjUPD8ILPZIo2LaLaSw", .invalidBase64),
    ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", .invalidBase64),
    ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS-", .invalidBase64),
    ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_", .invalidBase64),
    ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa==Sw==", .invalidBase64),
    ("whsec_====", .invalidBase64),
    ("whsec_é" + "AAA", .invalidBase64),
    ("whsec_" + String(repeating: "A", count: 1028), .invalidBase64),
    // 16 bytes end in "pQ=="; "pR==" differs only in bits that a lenient decoder ignores. Then padding left out.
    ("whsec_paWlpaWlpaWlpaWlpaWlpR==", .invalidBase64),
    ("whsec_paWlpaWlpaWlpaWlpaWlpQ", .invalidBase64),
    ("whsec_paWlpaWlpaWlpaWlpaWlpQ=", .invalidBase64),
    (text("whsec_", 15), .wrongLength(byteCount: 15, allowed: "16 to 64")),
    (text("whsec_", 65), .wrongLength(byteCount: 65, allowed: "16 to 64")),
    (text("whsk_", 31), .wrongLength(byteCount: 31, allowed: "32 (seed) or 64 (seed and public key)")),
    (text("whsk_", 33), .wrongLength(byteCount: 33, allowed: "32 (seed) or 64 (seed and public key)")),
    (text("whsk_", 64), .publicKeyMismatch),
  ])
  func malformedSigningKeyIsRefused(text: String, expected: WebhookKeyError) {
    #expect(throws: expected) { try SigningKey(parsing: text) }
  }

  @Test(arguments: [
    ("", WebhookKeyError.unknownPrefix(expected: ["whsec_", "whpk_"])),
    ("whpk_", .empty),
    (text("whpk_", 31), .wrongLength(byteCount: 31, allowed: "32")),
    (text("whpk_", 64), .wrongLength(byteCount: 64, allowed: "32")),
    (text("whsk_", 32), .privateKeyForVerification),
    ("whsec_paWlpaWlpaWlpaWlpaWlpR==", .invalidBase64),
  ])
  func malformedVerificationKeyIsRefused(text: String, expected: WebhookKeyError) {
    #expect(throws: expected) { try VerificationKey(parsing: text) }
  }

  @Test func seedAloneIsTheSameKeyAsSeedWithPublicHalf() throws {
    let pair = SigningKey.generateEd25519()
    let bytes = try #require(Data(base64Encoded: String(pair.encoded.dropFirst(5))))
    let seedOnly = try SigningKey(parsing: "whsk_" + bytes.prefix(32).base64EncodedString())
    #expect(seedOnly.encoded == pair.encoded)
    #expect(seedOnly.publicKey == pair.publicKey)
  }

  @Test func generatedKeysAreDistinctAndReadable() throws {
    #expect(SigningKey.generate().encoded != SigningKey.generate().encoded)
    #expect(SigningKey.generateEd25519().encoded != SigningKey.generateEd25519().encoded)
    let key = SigningKey.generate()
    #expect(key.encoded.utf8.count == "whsec_".utf8.count + 44)
    #expect(key.publicKey == nil)
    #expect(try SigningKey(parsing: key.encoded).encoded == key.encoded)
  }

  @Test(arguments: [SigningKey.generate(), .generateEd25519()])
  func secretNeverShows(key: SigningKey) {
    let secret = String(key.encoded.drop { $0 != "_" }.dropFirst().prefix(12))
    let verificationKey = VerificationKey(key)
    let signer = WebhookSigner(keys: [key])
    let verifier = WebhookVerifier(keys: [verificationKey])
    for value in [key, verificationKey, signer, verifier, [key], ["key": key]] as [Any] {
      var dumped = ""
      dump(value, to: &dumped)
      for text in [dumped, "\(value)", String(reflecting: value), String(describing: Optional(value))] {
        #expect(!text.contains(secret))
        #expect(!text.contains("SymmetricKey") && !text.contains("Curve25519") && !text.contains("HMAC"))
      }
    }
  }

  @Test func errorsNeverShowTheSecret() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS-"
    let error = #expect(throws: WebhookKeyError.self) { try SigningKey(parsing: secret) }
    #expect(error.map { !"\($0) \(String(reflecting: $0))".contains("MfKQ") } == true)
  }
}
