import Foundation
import Receiver
import Testing
import WebhookSignature

@Suite(.timeLimit(.minutes(2))) struct ReceiverTests {
  @Test func deliveryArrivesByteForByte() async throws {
    let log = Log<ReceivedDelivery>()
    let receiver = Receiver(port: 0, verifier: nil) {
      log.append($0)
      return Reply(status: 202, headers: ["X-Reply": "yes"], body: "thanks")
    }
    let body = (0...255).map { UInt8($0) }
    let response = try await withReceiver(receiver) { port in
      try await onThread {
        try HTTPConnection(port: port).post(
          "/a%2Fb?q=1",
          headers: [("Webhook-Id", "msg_1"), ("WEBHOOK-TIMESTAMP", "17")],
          body: body
        )
      }
    }
    #expect(response.status == 202)
    #expect(response.headers["x-reply"] == "yes")
    #expect(response.body == "thanks")
    let delivery = try #require(log.all.first)
    #expect(log.all.count == 1)
    #expect(delivery.path == "/a%2Fb?q=1")
    #expect(delivery.webhookID == "msg_1")
    #expect(delivery.timestamp == 17)
    #expect(delivery.header("webhook-id") == "msg_1")
    #expect(delivery.body == body)
    #expect(delivery.verification == .unsigned)
  }

  @Test func signaturesAreVerified() async throws {
    let key = SigningKey.generate()
    let now = Date(timeIntervalSince1970: 5000)
    let body = Array("{}".utf8)
    let good = WebhookSigner(keys: [key]).headers(id: "a", timestamp: 5000, body: body)
    let old = WebhookSigner(keys: [key]).headers(id: "a", timestamp: 4000, body: body)
    let log = Log<ReceivedDelivery.Verification>()
    let verifier = WebhookVerifier(keys: [VerificationKey(key)])
    let handler: @Sendable (ReceivedDelivery) async -> Reply = {
      log.append($0.verification)
      return .ok
    }
    let receiver = Receiver(port: 0, verifier: verifier, now: { now }, handler: handler)
    try await withReceiver(receiver) { port in
      try await onThread {
        let connection = try HTTPConnection(port: port)
        _ = try connection.post("/", headers: good, body: body)
        _ = try connection.post("/", headers: good, body: body + [32])
        _ = try connection.post("/", headers: old, body: body)
        _ = try connection.post("/", body: body)
      }
    }
    #expect(
      log.all == [
        .verified,
        .invalid(reason: "no signature matches: another secret, or a changed body"),
        .invalid(reason: "timestamp is 1000 s old, more than the tolerance"),
        .unsigned,
      ]
    )
    try await withReceiver(Receiver(port: 0, verifier: nil, handler: handler)) { port in
      _ = try await onThread { try HTTPConnection(port: port).post("/", headers: good, body: body) }
    }
    #expect(log.all.last == .unchecked)
  }

  @Test func connectionIsKeptForManyRequests() async throws {
    let receiver = Receiver(port: 0, verifier: nil) { Reply(status: 200, body: String($0.body.count)) }
    try await withReceiver(receiver) { port in
      try await onThread {
        let connection = try HTTPConnection(port: port)
        // Below, at and above the sizes at which the server changes how it reads.
        for size in [0, 1, 4095, 4096, 65535, 65536, 65537, 200_000, 0, 3] {
          let response = try connection.post("/", body: [UInt8](repeating: 7, count: size))
          #expect(response.status == 200)
          #expect(response.body == "\(size)")
        }
      }
    }
  }

  @Test func chunkedBodyIsPutTogether() async throws {
    let receiver = Receiver(port: 0, verifier: nil) {
      Reply(status: 200, body: String(decoding: $0.body, as: UTF8.self))
    }
    let response = try await withReceiver(receiver) { port in
      try await onThread {
        let connection = try HTTPConnection(port: port)
        try connection.send(method: "POST", "/", headers: [("Transfer-Encoding", "chunked")])
        try connection.write(Array("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".utf8))
        return try connection.receive()
      }
    }
    #expect(response.body == "abcde")
  }

  @Test func tooLargeBodyIsAnswered413AndTheConnectionGoesOn() async throws {
    let log = Log<Int>()
    let receiver = Receiver(port: 0, verifier: nil, bodyLimitBytes: 100_000) {
      log.append($0.body.count)
      return .ok
    }
    try await withReceiver(receiver) { port in
      try await onThread {
        let connection = try HTTPConnection(port: port)
        #expect(try connection.post("/", body: [UInt8](repeating: 1, count: 100_001)).status == 413)
        #expect(try connection.post("/", body: [UInt8](repeating: 1, count: 5_000_000)).status == 413)
        #expect(try connection.post("/", body: [UInt8](repeating: 1, count: 100_000)).status == 200)
        try connection.send(method: "POST", "/", headers: [("Transfer-Encoding", "chunked")])
        try connection.write(
          Array("30D40\r\n".utf8) + [UInt8](repeating: 1, count: 200_000) + Array("\r\n0\r\n\r\n".utf8)
        )
        #expect(try connection.receive().status == 413)
        #expect(try connection.post("/", body: [1]).status == 200)
      }
    }
    #expect(log.all == [100_000, 1])
  }

  @Test func otherMethodsAreExplained() async throws {
    let receiver = Receiver(port: 0, verifier: nil) { _ in Reply(status: 500) }
    try await withReceiver(receiver) { port in
      try await onThread {
        let connection = try HTTPConnection(port: port)
        try connection.send(method: "HEAD", "/")
        #expect(try connection.receive(hasBody: false).status == 200)
        try connection.send(method: "GET", "/")
        let about = try connection.receive()
        #expect(about.status == 200)
        #expect(about.body.contains("Martlet receiver"))
        try connection.send(method: "DELETE", "/")
        let refused = try connection.receive()
        #expect(refused.status == 405)
        #expect(refused.headers["allow"] == "GET, HEAD, POST, PUT")
      }
    }
  }

  @Test func statusThatIsNoAnswerBecomes500() async throws {
    let receiver = Receiver(port: 0, verifier: nil) { Reply(status: Int($0.body.count)) }
    try await withReceiver(receiver) { port in
      try await onThread {
        let connection = try HTTPConnection(port: port)
        #expect(try connection.post("/", body: [UInt8](repeating: 0, count: 101)).status == 500)
        #expect(try connection.post("/", body: [UInt8](repeating: 0, count: 600)).status == 500)
        #expect(try connection.post("/", body: [UInt8](repeating: 0, count: 503)).status == 503)
      }
    }
  }
}
