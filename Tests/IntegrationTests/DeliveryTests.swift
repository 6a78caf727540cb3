import Foundation
import Receiver
import TestSupport
import Testing

@testable import Dispatcher

@Suite struct DeliveryTests {
  @Test func committedEventsArriveOnceAndRolledBackOnesNever() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url())
    try await withDispatcher(database) { _ in
      for round in 0..<20 {
        try await database.publish(10, first: round * 10)
        try await database.execute(
          "BEGIN; INSERT INTO outbox.event (type, payload) VALUES ('order.created', '{\"n\": -1}'); ROLLBACK"
        )
      }
      try await eventually("all have arrived") { listener.accepted().count >= 200 }
    }
    #expect(listener.accepted().compactMap(\.n).sorted() == Array(0..<200))
    #expect(Set(listener.accepted().map(\.id)).count == 200)
    #expect(try await database.int("SELECT count(*) FROM outbox.attempt WHERE outcome = 'delivered'") == 200)
    #expect(try await database.int("SELECT count(*) FROM outbox.batch") == 0)
    #expect(try await database.int("SELECT count(*) FROM outbox.dispatcher") == 0)
  }

  /// The project's own sample set and, where it is there, the larger one beside the project.
  @Test(arguments: ["Examples/events.jsonl", "../shared/data/github-events.jsonl"])
  func realPayloadsArriveAsTheyWerePublishedAndAsTheyWereSigned(_ path: String) async throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    guard let text = try? String(contentsOf: root.appendingPathComponent(path), encoding: .utf8) else {
      try Test.cancel("\(path) is not here")
    }
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    let database = try await TestDatabase.make()
    let listener = try await Listener(secret: secret)
    _ = try await database.addEndpoint(listener.url("/raw"), options: "format => 'raw', secret => '\(secret)'")
    _ = try await database.addEndpoint(listener.url("/standard"), options: "secret => '\(secret)'")
    let lines = text.split(separator: "\n").map(String.init)
    try await withDispatcher(database) { _ in
      try await database.session.withConnection { connection in
        for line in lines {
          _ = try connection.query(
            """
            SELECT outbox.publish($1::jsonb ->> 'type', $1::jsonb -> 'payload', $1::jsonb ->> 'key')
            """,
            [.jsonb(line)]
          )
        }
      }
      try await eventually("all have arrived") {
        listener.accepted("/raw").count >= lines.count && listener.accepted("/standard").count >= lines.count
      }
    }
    let published = try await database.rows("SELECT id, payload::text FROM outbox.event")
    let payloads = Dictionary(uniqueKeysWithValues: published.map { ($0[0]!, $0[1]!) })
    // The verifier let them in, so these are the bytes that were signed.
    for arrival in listener.accepted("/raw") { #expect(arrival.body == payloads[arrival.id]) }
    for arrival in listener.accepted("/standard") {
      let payload = try #require(payloads[arrival.id])
      #expect(arrival.body.hasSuffix(#","data":\#(payload)}"#))
    }
    #expect(listener.accepted("/raw").count == lines.count)
  }

  @Test func rotatedSecretsSignSideBySide() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    let endpoint = try await database.addEndpoint(listener.url())
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("the first has arrived") { listener.arrivals.count == 1 }
      try await database.execute("SELECT outbox.rotate_secret(\(endpoint))")
      try await database.publish(1)
      try await eventually("the second has arrived") { listener.arrivals.count == 2 }
    }
    let signatures = listener.arrivals.map { arrival in
      arrival.headers.first { $0.name.lowercased() == "webhook-signature" }?.value.split(separator: " ").count
    }
    #expect(signatures == [1, 2])
  }

  @Test func privateAddressesAreRefusedUnlessAllowed() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    _ = try await database.addEndpoint("https://127.0.0.1:\(listener.port)/")
    _ = try await database.addEndpoint("https://localhost:\(listener.port)/")
    _ = try await database.addEndpoint(listener.url())
    try await withDispatcher(database, policy: .init()) { _ in
      try await database.publish(1)
      try await eventually("all were tried") {
        try await database.int("SELECT count(*) FROM outbox.delivery WHERE attempts = 1") == 3
      }
    }
    #expect(listener.arrivals.isEmpty)
    let errors = try await database.rows("SELECT last_error FROM outbox.delivery ORDER BY endpoint_id").map { $0[0]! }
    #expect(errors[0].contains("--allow-network"))
    #expect(errors[1].contains("--allow-network"))
    #expect(errors[2].contains("--allow-http"))
  }
}
