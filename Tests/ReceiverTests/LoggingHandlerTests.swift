import Foundation
import Testing
import WebhookSignature

@testable import Receiver

@Suite(.timeLimit(.minutes(2))) struct LoggingHandlerTests {
  private func delivery(
    id: String? = "msg_1",
    body: String = #"{"type":"order.created"}"#,
    headers: [(name: String, value: String)] = [],
    verification: ReceivedDelivery.Verification = .unsigned
  ) -> ReceivedDelivery {
    ReceivedDelivery(
      path: "/",
      webhookID: id,
      timestamp: nil,
      headers: headers,
      body: Array(body.utf8),
      verification: verification,
      receivedAt: .now,
      receivedAtDate: Date(timeIntervalSince1970: 1_700_000_000.25)
    )
  }

  private func line(_ delivery: ReceivedDelivery, options: ReceiverOptions = ReceiverOptions()) -> String? {
    let log = Log<String>()
    _ = LoggingHandler(options: options, output: { log.append($0) }).reply(to: delivery)
    return log.all.first
  }

  @Test func lineTellsEverythingAboutADelivery() {
    #expect(line(delivery()) == "22:13:20.250Z 200 order.created msg_1 24 B unsigned")
    #expect(line(delivery(verification: .verified)) == "22:13:20.250Z 200 order.created msg_1 24 B verified")
    #expect(line(delivery(id: nil, body: "")) == "22:13:20.250Z 200 - - 0 B unsigned")
    let refused = line(
      delivery(verification: .invalid(reason: "too old")),
      options: ReceiverOptions(secrets: [SigningKey.generate().encoded])
    )
    #expect(refused == "22:13:20.250Z 401 order.created msg_1 24 B INVALID (too old)")
  }

  @Test(arguments: [
    (#"{"type":"a.b","data":{"type":"x"}}"#, "a.b"), (#" {"event":"c.d","data":1}"#, "c.d"),
    (#"{"type":{"x":1},"event":"e"}"#, "e"), (#"{"type":7}"#, "-"), ("[1,2]", "-"), ("{", "-"), ("", "-"),
    (#"{"type":""# + "\u{1b}[2Jevil\nline" + #""}"#, "-"), (#"{"type":"\u001b[2J\n\u202eevil"}"#, "�[2J��evil"),
    (String(repeating: #"{"a":"#, count: 100_000), "-"),
  ])
  func eventTypeIsFoundInTheBody(body: String, expected: String) {
    #expect(line(delivery(body: body))?.components(separatedBy: " ")[2] == expected)
  }

  @Test func eventTypeOfABinaryCloudEventIsInItsHeader() {
    let headers = [(name: "Ce-Type", value: "order.paid")]
    #expect(line(delivery(body: "{\"type\":\"other\"}", headers: headers))?.contains(" order.paid ") == true)
  }

  @Test func longIDIsCutInTheLine() {
    let text = line(delivery(id: String(repeating: "i", count: 5000)))
    #expect(text?.contains(String(repeating: "i", count: 100) + "… ") == true)
    #expect(text.map { $0.count < 200 } == true)
  }

  @Test func onlyARepeatedDeliveryThatWasAcceptedIsADuplicate() {
    let log = Log<String>()
    let random = Scripted(values: [0, .max, .max])
    let handler = LoggingHandler(options: ReceiverOptions(failRate: 0.5), random: random, output: { log.append($0) })
    // 500, then 200, then 200 again.
    #expect((0..<3).map { _ in handler.reply(to: delivery()).status } == [500, 200, 200])
    #expect(log.all.map { $0.hasSuffix("duplicate") } == [false, false, true])
    #expect(handler.reply(to: delivery(id: nil)).status == 200)
    #expect(log.all.last?.hasSuffix("unsigned") == true)
  }

  @Test func failRateFailsThatShareAndTheSameOnesForASeed() {
    func statuses(_ rate: Double, seed: UInt64) -> [Int] {
      let handler = LoggingHandler(
        options: ReceiverOptions(failRate: rate),
        random: SplitMix(state: seed),
        output: { _ in }
      )
      return (0..<1000).map { handler.reply(to: delivery(id: "\($0)")).status }
    }
    #expect(statuses(0, seed: 1).allSatisfy { $0 == 200 })
    #expect(statuses(1, seed: 1).allSatisfy { $0 == 500 })
    #expect(statuses(0.3, seed: 1) == statuses(0.3, seed: 1))
    #expect((250...350).contains(statuses(0.3, seed: 1).count { $0 == 500 }))
  }

  @Test func onlyVerifiedDeliveriesPassWhereThereIsASecret() {
    let options = ReceiverOptions(status: 204, delay: .seconds(1), secrets: [SigningKey.generate().encoded])
    let handler = LoggingHandler(options: options, output: { _ in })
    #expect(handler.reply(to: delivery(verification: .unsigned)).status == 401)
    #expect(handler.reply(to: delivery(verification: .unchecked)).status == 401)
    #expect(handler.reply(to: delivery(verification: .invalid(reason: "x"))).status == 401)
    let reply = handler.reply(to: delivery(verification: .verified))
    #expect(reply.status == 204)
    #expect(reply.delay == .seconds(1))
  }

  @Test func rememberedIDsAreBounded() {
    var ids = RecentIDs(limit: 3)
    for id in ["a", "b", "c", "c", "d"] { ids.insert(id) }
    #expect(!ids.contains("a"))
    #expect(["b", "c", "d"].allSatisfy { ids.contains($0) })
    for number in 0..<1000 { ids.insert("\(number)") }
    #expect(ids.count == 3)
    #expect(ids.contains("999") && ids.contains("998") && ids.contains("997"))
  }

  @Test(arguments: [
    ReceiverOptions(status: 199), ReceiverOptions(status: 600), ReceiverOptions(failRate: -0.1),
    ReceiverOptions(failRate: 1.1), ReceiverOptions(failRate: .nan), ReceiverOptions(delay: .seconds(-1)),
    ReceiverOptions(delay: .seconds(1_000_000)), ReceiverOptions(secrets: ["whsec_Topsecret"]),
  ])
  func senselessOptionIsRefusedWithoutShowingASecret(options: ReceiverOptions) throws {
    let error = #expect(throws: ReceiverError.self) { try options.makeReceiver(output: { _ in }) }
    let text = try #require(error).description
    #expect(text.hasPrefix("--") || text.hasPrefix("the secret is not usable: "))
    #expect(!text.contains("Topsecret"))
  }

  @Test func everythingTogetherOverHTTP() async throws {
    let (key, other) = (SigningKey.generate(), SigningKey.generate())
    let log = Log<String>()
    let options = ReceiverOptions(port: 0, status: 201, secrets: [other.encoded, key.encoded])
    let receiver = try options.makeReceiver(output: { log.append($0) })
    let body = Array(#"{"type":"order.created","data":{}}"#.utf8)
    let headers = WebhookSigner(keys: [key])
      .headers(id: "msg_9", timestamp: Int(Date().timeIntervalSince1970), body: body)
    try await withReceiver(receiver) { port in
      try await onThread {
        let connection = try HTTPConnection(port: port)
        #expect(try connection.post("/", headers: headers, body: body).status == 201)
        #expect(try connection.post("/", headers: headers, body: body).status == 201)
        #expect(try connection.post("/", body: body).status == 401)
      }
    }
    #expect(
      log.all.map { $0.components(separatedBy: " ").dropFirst().joined(separator: " ") } == [
        "201 order.created msg_9 34 B verified",
        "201 order.created msg_9 34 B verified duplicate",
        "401 order.created - 34 B unsigned",
      ]
    )
  }
}

/// Gives the values in turn, and the last for ever.
private struct Scripted: RandomNumberGenerator {
  var values: [UInt64]

  mutating func next() -> UInt64 {
    values.count > 1 ? values.removeFirst() : values[0]
  }
}

private struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
