import Foundation
import Testing
import WebhookSignature

@Suite struct SigningTests {
  @Test(arguments: Vector.inline)
  func knownVectorIsReproduced(vector: Vector) throws {
    try expectReproduced(vector)
  }

  @Test(
    .enabled(if: !Vector.shared.isEmpty, "shared/data/standard-webhooks-vectors.json is not beside the project"),
    arguments: Vector.shared
  )
  func sharedVectorIsReproduced(vector: Vector) throws {
    try #require(vector.kind != "unreadable")
    try expectReproduced(vector)
  }

  private func expectReproduced(_ vector: Vector) throws {
    let key = try SigningKey(parsing: vector.secret)
    let signer = WebhookSigner(keys: [key])
    let body = Array(vector.body.utf8)
    #expect(signer.signature(id: vector.id, timestamp: vector.timestamp, body: body) == vector.signature)
    #expect(key.publicKey == vector.public)
    #expect(key.encoded == vector.secret)
    let verifier = WebhookVerifier(keys: [try VerificationKey(parsing: vector.verificationKey)])
    try verifier.verify(
      id: vector.id,
      timestamp: "\(vector.timestamp)",
      signature: vector.signature,
      body: body,
      now: vector.now
    )
  }

  @Test func everyKeySignsInTheOrderGiven() throws {
    let keys = try Vector.inline.map { try SigningKey(parsing: $0.secret) }
    let vector = Vector.inline[0]
    let header = WebhookSigner(keys: keys)
      .signature(id: vector.id, timestamp: vector.timestamp, body: Array(vector.body.utf8))
    #expect(header == Vector.inline.map(\.signature).joined(separator: " "))
  }

  @Test func headersCarryIDTimestampAndSignature() throws {
    let vector = Vector.inline[0]
    let signer = WebhookSigner(keys: [try SigningKey(parsing: vector.secret)])
    let headers = signer.headers(id: vector.id, timestamp: vector.timestamp, body: Array(vector.body.utf8))
    #expect(headers.map(\.name) == ["webhook-id", "webhook-timestamp", "webhook-signature"])
    #expect(headers.map(\.value) == [vector.id, "1614265330", vector.signature])
  }

  @Test func signerWithoutKeysLeavesTheSignatureOut() {
    let signer = WebhookSigner(keys: [])
    #expect(signer.signature(id: "a", timestamp: 1, body: [UInt8]()).isEmpty)
    #expect(signer.headers(id: "a", timestamp: 1, body: [UInt8]()).map(\.name) == ["webhook-id", "webhook-timestamp"])
  }

  @Test func nullBufferIsAnEmptyBody() {
    let signer = WebhookSigner(keys: [.generate()])
    let empty = UnsafeRawBufferPointer(start: nil, count: 0)
    #expect(
      signer.signature(id: "a", timestamp: 1, body: empty) == signer.signature(id: "a", timestamp: 1, body: [UInt8]())
    )
  }

  @Test func bodyInPiecesSignsLikeBodyInOnePiece() {
    let signer = WebhookSigner(keys: [.generate(), .generateEd25519()])
    let body = Array(0...255).map { UInt8($0) }
    // A reversed view has no contiguous storage, so this goes through the copy.
    let scattered = body.reversed().reversed() as ReversedCollection<ReversedCollection<[UInt8]>>
    #expect(
      signer.signature(id: "a", timestamp: 1, body: scattered) == signer.signature(id: "a", timestamp: 1, body: body)
    )
  }

  @Test(arguments: [0, 7, -1, -1_234_567_890, Int.max, Int.min])
  func timestampIsWrittenInDecimal(timestamp: Int) {
    // The id ends where the timestamp begins, so moving the timestamp's text into the body must sign the same bytes
    // as a signature whose timestamp is 0 with the text in its id.
    let signer = WebhookSigner(keys: [.generate()])
    let asTimestamp = signer.signature(id: "a", timestamp: timestamp, body: Array("0.x".utf8))
    let asID = signer.signature(id: "a.\(timestamp)", timestamp: 0, body: Array("x".utf8))
    #expect(asTimestamp == asID)
  }
}
