import Foundation
import Receiver
import Synchronization
import TestSupport
import Testing

@testable import Dispatcher

@Suite struct OAuthTests {
  /// A token server and an endpoint in one listener: /token gives out token-1, token-2, …, and /hook wants the newest.
  private final class Shop: Sendable {
    let issued = Atomic(0)
    let refusesTokens = Atomic(false)
    let answer: String
    init(answer: String = #","expires_in":3600}"#) { self.answer = answer }

    func reply(to arrival: Listener.Arrival) -> Reply {
      guard arrival.path == "/token" else {
        let authorization = arrival.headers.first { $0.name.lowercased() == "authorization" }?.value
        return Reply(status: authorization == "Bearer token-\(issued.load(ordering: .relaxed))" ? 200 : 401)
      }
      guard !refusesTokens.load(ordering: .relaxed) else {
        return Reply(status: 401, body: #"{"error":"invalid_client","error_description":"s3cret"}"#)
      }
      let number = issued.add(1, ordering: .relaxed).newValue
      return Reply(status: 200, body: #"{"access_token":"token-\#(number)","token_type":"Bearer"\#(answer)"#)
    }
  }

  private func make(_ shop: Shop, options: String = "") async throws -> (TestDatabase, Listener) {
    let database = try await TestDatabase.make()
    let listener = try await Listener { arrival, _ in shop.reply(to: arrival) }
    let endpoint = try await database.addEndpoint(listener.url("/hook"), options: options)
    try await database.execute(
      "SELECT outbox.set_oauth2(\(endpoint), '\(listener.url("/token"))', 'me & co', 's3cret:%', scope => 'hooks write')"
    )
    return (database, listener)
  }

  @Test func oneTokenIsFetchedForAllThatDepart() async throws {
    let shop = Shop()
    let (database, listener) = try await make(shop)
    try await withDispatcher(database) { _ in
      try await database.publish(200)
      try await eventually("all have arrived") { listener.accepted("/hook").count == 200 }
    }
    #expect(shop.issued.load(ordering: .relaxed) == 1)
    let asked = try #require(listener.arrivals.first { $0.path == "/token" })
    #expect(asked.body == "grant_type=client_credentials&scope=hooks%20write")
    let headers = Dictionary(asked.headers.map { ($0.name.lowercased(), $0.value) }) { a, _ in a }
    let pair = Data("me%20%26%20co:s3cret%3A%25".utf8).base64EncodedString()
    #expect(headers["authorization"] == "Basic \(pair)")
    #expect(headers["content-type"] == "application/x-www-form-urlencoded")
    #expect(headers["webhook-signature"] == nil)
    #expect(try await database.missing() == 0)
  }

  @Test func aTokenThatTheEndpointRejectsIsReplaced() async throws {
    let shop = Shop()
    let (database, listener) = try await make(shop, options: "first_delay => '50 ms', multiplier => 1")
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("the first has arrived") { listener.accepted("/hook").count == 1 }
      shop.issued.add(1, ordering: .relaxed)  // revoked
      try await database.publish(1)
      try await eventually("the second has arrived") { listener.accepted("/hook").count == 2 }
    }
    #expect(listener.arrivals.filter { $0.path == "/token" }.count == 2)
  }

  @Test(arguments: [#","expires_in":0}"#, #","expires_in":"0"}"#])
  func aTokenIsNotUsedForLongerThanItIsGood(_ answer: String) async throws {
    let shop = Shop(answer: answer)
    let (database, listener) = try await make(shop)
    try await withDispatcher(database) { _ in
      for count in 1...3 {
        try await database.publish(1)
        try await eventually("it has arrived") { listener.accepted("/hook").count == count }
      }
    }
    #expect(shop.issued.load(ordering: .relaxed) == 3)
  }

  @Test func withoutATokenNothingIsSentAndTheReasonIsToldWithoutTheSecret() async throws {
    let shop = Shop()
    shop.refusesTokens.store(true, ordering: .relaxed)
    let (database, listener) = try await make(shop, options: "first_delay => '50 ms', multiplier => 1")
    _ = try await database.addEndpoint(listener.url("/other"))
    try await withDispatcher(database) { _ in
      try await database.publish(3)
      try await eventually("all were tried") {
        try await database.int("SELECT count(*) FROM outbox.delivery WHERE endpoint_id = 1 AND attempts > 0") == 3
      }
      #expect(listener.arrivals.allSatisfy { $0.path != "/hook" })
      let errors = try await database.rows("SELECT DISTINCT last_error FROM outbox.delivery WHERE endpoint_id = 1")
      #expect(errors == [["invalidRequest: no access token: the token endpoint answered 401 (invalid_client)"]])
      shop.refusesTokens.store(false, ordering: .relaxed)
      try await eventually("all have arrived") { listener.accepted("/hook").count == 3 }
    }
    #expect(try await database.missing() == 0)
  }

  @Test func answersThatAreNoTokensAreRefused() {
    for body in [
      "", "[]", "{}", #"{"access_token":""}"#, #"{"access_token":"a b"}"#, #"{"access_token":"a\r\nX: b"}"#,
      #"{"access_token":"a","token_type":"mac"}"#, #"{"access_token":7}"#,
    ] {
      let answer = TokenAnswer(
        .init(tag: 1, outcome: .response(status: 200), duration: .zero, keptBody: Array(body.utf8))
      )
      guard case .refused(let failure) = answer else {
        Issue.record("accepted \(body)")
        continue
      }
      #expect(failure.message.hasPrefix("no access token: "))
    }
  }
}
