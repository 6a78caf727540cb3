import Foundation
import Testing
import WebhookSignature

@Suite struct VerificationTests {
  let vector = Vector.inline[0]
  var verifier: WebhookVerifier {
    get throws { WebhookVerifier(keys: [try VerificationKey(parsing: vector.secret)]) }
  }

  /// Verifies the vector with some of its parts replaced.
  private func verify(
    id: String? = "msg_p5jXN8AQM9LWM0D4loKWxJek",
    timestamp: String? = "1614265330",
    signature: String? = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    body: String? = nil,
    afterSeconds: Double = 0
  ) throws {
    try verifier.verify(
      id: id,
      timestamp: timestamp,
      signature: signature,
      body: Array((body ?? vector.body).utf8),
      now: vector.now.addingTimeInterval(afterSeconds)
    )
  }

  @Test func everyTamperedPartIsDetected() throws {
    try verify()
    let noMatch = WebhookVerificationError.noMatchingSignature
    #expect(throws: noMatch) { try verify(id: "msg_p5jXN8AQM9LWM0D4loKWxJeK") }
    #expect(throws: noMatch) { try verify(timestamp: "1614265331") }
    #expect(throws: noMatch) { try verify(body: vector.body + " ") }
    #expect(throws: noMatch) { try verify(body: "") }
    #expect(throws: noMatch) { try verify(signature: "v1,h0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=") }
    #expect(throws: noMatch) { try verify(signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1A==") }
    // The same bytes in a spelling that only a lenient decoder reads.
    #expect(throws: noMatch) { try verify(signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF=") }
    #expect(throws: noMatch) { try verify(signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE") }
  }

  @Test func everyFlippedBitOfTheBodyIsDetected() throws {
    let key = SigningKey.generateEd25519()
    let body: [UInt8] = Array("{\"a\":1}".utf8)
    let signer = WebhookSigner(keys: [.generate(), key])
    let signature = signer.signature(id: "a", timestamp: 0, body: body)
    let verifier = WebhookVerifier(keys: [VerificationKey(key)])
    for bit in 0..<body.count * 8 {
      var changed = body
      changed[bit / 8] ^= 1 << (bit % 8)
      #expect(throws: WebhookVerificationError.noMatchingSignature) {
        try verifier.verify(
          id: "a",
          timestamp: "0",
          signature: signature,
          body: changed,
          now: Date(timeIntervalSince1970: 0)
        )
      }
    }
  }

  @Test func missingHeaderIsNamed() {
    #expect(throws: WebhookVerificationError.missingHeader(name: "webhook-id")) { try verify(id: nil) }
    #expect(throws: WebhookVerificationError.missingHeader(name: "webhook-id")) { try verify(id: "") }
    #expect(throws: WebhookVerificationError.missingHeader(name: "webhook-timestamp")) { try verify(timestamp: nil) }
    #expect(throws: WebhookVerificationError.missingHeader(name: "webhook-timestamp")) { try verify(timestamp: "") }
    #expect(throws: WebhookVerificationError.missingHeader(name: "webhook-signature")) { try verify(signature: nil) }
    #expect(throws: WebhookVerificationError.missingHeader(name: "webhook-signature")) { try verify(signature: "") }
  }

  @Test func idWithAFullStopIsRefused() {
    #expect(throws: WebhookVerificationError.malformedID) { try verify(id: "msg.1") }
  }

  @Test(arguments: [
    "abc", "1614265330.0", "+1614265330", "-1614265330", " 1614265330", "1614265330 ", "01614265330", "0x60371A72",
    "1e9", "١٦١٤٢٦٥٣٣٠", "9999999999999", "99999999999999999999999999", "1614265330\n", "1_614_265_330", "\u{0}",
  ])
  func malformedTimestampIsRefused(timestamp: String) {
    #expect(throws: WebhookVerificationError.malformedTimestamp) { try verify(timestamp: timestamp) }
  }

  @Test func toleranceIncludesItsEdgesBothWays() throws {
    try verify(afterSeconds: 300)
    try verify(afterSeconds: -300)
    #expect(throws: WebhookVerificationError.timestampTooOld(ageSeconds: 301)) { try verify(afterSeconds: 301) }
    #expect(throws: WebhookVerificationError.timestampTooNew(aheadSeconds: 301)) { try verify(afterSeconds: -301) }
    #expect(throws: WebhookVerificationError.timestampTooOld(ageSeconds: 300)) { try verify(afterSeconds: 300.25) }
  }

  @Test func extremeTimesAndTolerancesDoNotTrap() throws {
    let key = try VerificationKey(parsing: vector.secret)
    let tolerances: [Duration] = [.zero, .seconds(-1), .seconds(Int64.max), .nanoseconds(1)]
    for tolerance in tolerances {
      let verifier = WebhookVerifier(keys: [key], tolerance: tolerance)
      for now in [Double.nan, .infinity, -.infinity, 1e300, -1e300, 0] {
        for timestamp in ["0", "999999999999"] {
          #expect(throws: WebhookVerificationError.self) {
            try verifier.verify(
              id: "a",
              timestamp: timestamp,
              signature: "v1,",
              body: [UInt8](),
              now: Date(timeIntervalSince1970: now)
            )
          }
        }
      }
    }
  }

  @Test func anySignatureByAnyKeyPassesDuringARotation() throws {
    let (old, new, other) = (SigningKey.generate(), SigningKey.generate(), SigningKey.generateEd25519())
    let now = Date(timeIntervalSince1970: 1000)
    func passes(signedWith signing: [SigningKey], verifiedWith verifying: [SigningKey]) -> Bool {
      let header = WebhookSigner(keys: signing).signature(id: "a", timestamp: 1000, body: Array("x".utf8))
      let verifier = WebhookVerifier(keys: verifying.map { VerificationKey($0) })
      let body = Array("x".utf8)
      return (try? verifier.verify(id: "a", timestamp: "1000", signature: header, body: body, now: now)) != nil
    }
    #expect(passes(signedWith: [old, new], verifiedWith: [old]))
    #expect(passes(signedWith: [old, new], verifiedWith: [new]))
    #expect(passes(signedWith: [old], verifiedWith: [old, new]))
    #expect(passes(signedWith: [new], verifiedWith: [old, new]))
    #expect(passes(signedWith: [other, new], verifiedWith: [other]))
    #expect(passes(signedWith: [other, new], verifiedWith: [new]))
    #expect(!passes(signedWith: [old], verifiedWith: [new]))
    #expect(!passes(signedWith: [old, new], verifiedWith: [other]))
    #expect(!passes(signedWith: [old], verifiedWith: []))
  }

  @Test func unknownAndMalformedSignaturesAreSkipped() throws {
    let good = vector.signature
    try verify(signature: "v2,AAAA v1,not-base64 v1 , v1,AAAA \(good) v1a,AAAA")
    try verify(signature: "  \(good)  ")
    #expect(throws: WebhookVerificationError.noSupportedSignature) {
      try verify(signature: good.replacingOccurrences(of: "v1,", with: "v2,"))
    }
    #expect(throws: WebhookVerificationError.noSupportedSignature) { try verify(signature: "v1a,AAAA") }
    #expect(throws: WebhookVerificationError.noSupportedSignature) { try verify(signature: "     ") }
  }

  @Test func headerSizeAndSignatureCountAreBounded() throws {
    let fillers = Array(repeating: "v9,A", count: 31)
    try verify(signature: (fillers + [vector.signature]).joined(separator: " "))
    #expect(throws: WebhookVerificationError.tooManySignatures(limit: 32)) {
      try verify(signature: (fillers + ["v9,A", vector.signature]).joined(separator: " "))
    }
    #expect(throws: WebhookVerificationError.headerTooLong(name: "webhook-signature", limitBytes: 4096)) {
      try verify(signature: vector.signature + " v9," + String(repeating: "A", count: 4096))
    }
    #expect(throws: WebhookVerificationError.headerTooLong(name: "webhook-id", limitBytes: 256)) {
      try verify(id: String(repeating: "a", count: 257))
    }
  }

  @Test func headersAreFoundInAnyCase() throws {
    let body = Array(vector.body.utf8)
    let headers = [
      "Content-Type": "application/json", "Webhook-Id": vector.id, "WEBHOOK-TIMESTAMP": "1614265330",
      "webhook-Signature": vector.signature,
    ]
    try verifier.verify(headers: headers, body: body, now: vector.now)
    let signer = WebhookSigner(keys: [try SigningKey(parsing: vector.secret)])
    let list = signer.headers(id: vector.id, timestamp: vector.timestamp, body: body)
    try verifier.verify(headers: list, body: body, now: vector.now)
    #expect(throws: WebhookVerificationError.duplicateHeader(name: "webhook-id")) {
      try verifier.verify(headers: list + [(name: "Webhook-ID", value: "x")], body: body, now: vector.now)
    }
    #expect(throws: WebhookVerificationError.missingHeader(name: "webhook-id")) {
      try verifier.verify(headers: [String: String](), body: body, now: vector.now)
    }
  }
}
