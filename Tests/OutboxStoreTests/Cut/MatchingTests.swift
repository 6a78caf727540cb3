import Foundation
import OutboxStore
import Postgres
import Testing

/// Which endpoints an event goes to, and whether straight out or by way of `outbox.delivery`.
@Suite struct MatchingTests {
  @Test func patternsMatchExactlyByPrefixAtAnyDepthAndEverything() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let patterns = ["*", "order.*", "order.item.*", "order.item.added", "order", "orde.*", "order.item"]
      var endpoints: [Int64: String] = [:]
      for pattern in patterns { endpoints[try await worker.client.addEndpoint("'{\(pattern)}'")] = pattern }
      let expected = [
        "order.item.added": ["*", "order.*", "order.item.*", "order.item.added"],
        "order.item": ["*", "order.*", "order.item"],
        "order": ["*", "order"],
        "orders.item": ["*"],
        "a": ["*"],
        "order.item.added.twice": ["*", "order.*", "order.item.*"],
      ]
      for type in expected.keys { try await worker.client.publish(1, type: type) }
      let direct = try await worker.drain().flatMap(\.direct)
      #expect(direct.count == expected.count)
      for one in direct {
        #expect(one.endpoints.compactMap { endpoints[$0] }.sorted() == expected[one.event.type]!.sorted())
      }
    }
  }

  /// An endpoint for everything must not be told that it failed, fail at that, and be told again.
  @Test func martletsOwnEventsGoToWhomAsksForThemOnly() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let patterns = [
        "*", "martlet.*", "martlet.endpoint.*", "martlet.endpoint.disabled", "martlet.ping", "martlet", "martlets.*",
        "m.*",
      ]
      var endpoints: [Int64: String] = [:]
      for pattern in patterns { endpoints[try await worker.client.addEndpoint("'{\(pattern)}'")] = pattern }
      let expected = [
        "martlet.endpoint.disabled": ["martlet.*", "martlet.endpoint.*", "martlet.endpoint.disabled"],
        "martlet.ping": ["martlet.*", "martlet.ping"],
        "martlet.": ["martlet.*"],
        "martlet": ["*", "martlet"],
        "martlets.a": ["*", "martlets.*"],
        "Martlet.ping": ["*"],
      ]
      try await worker.client.execute("SELECT outbox.stamp_subscriptions()")
      for type in expected.keys { try await worker.client.publish(1, type: type) }
      let direct = try await worker.drain().flatMap(\.direct)
      #expect(direct.count == 6)
      for one in direct {
        #expect(one.endpoints.compactMap { endpoints[$0] }.sorted() == expected[one.event.type]!.sorted())
      }
      // The reconciler expects the same, and so do a replay and a resend.
      let pairs = expected.values.map(\.count).reduce(0, +)
      #expect(
        try await worker.client.rows("SELECT pairs, missing FROM outbox.conservation('-infinity')") == [
          ["\(pairs)", "0"]
        ]
      )
      try await worker.client.execute("DELETE FROM outbox.batch")
      for (endpoint, pattern) in endpoints {
        let count = expected.values.count { $0.contains(pattern) }
        #expect(try await worker.client.int("SELECT outbox.replay(\(endpoint), '-infinity')") == count, "\(pattern)")
      }
      try await worker.client.execute("DELETE FROM outbox.delivery")
      #expect(try await worker.client.int("SELECT sum(outbox.resend(id)) FROM outbox.event") == pairs)
    }
  }

  @Test func twoPatternsOfOneEndpointGiveOneDelivery() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("'{*, a.*, a.b}'")
      try await worker.client.publish(1, type: "a.b")
      #expect(try await worker.cut()?.pairs.count == 1)
    }
  }

  @Test func tenantsAreApart() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("tenant => 'acme'")
      try await worker.client.addEndpoint("tenant => 'other'")
      try await worker.client.addEndpoint()
      try await worker.client.execute("SELECT outbox.publish('t', '{}', tenant => 'acme')")
      #expect(try await worker.cut()?.pairs.map(\.endpoint) == [endpoint])
    }
  }

  @Test func pausedEndpointParksAndDisabledIsPassedBy() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let (paused, disabled) = (try await worker.client.addEndpoint(), try await worker.client.addEndpoint())
      try await worker.client.execute("SELECT outbox.pause(\(paused)), outbox.disable(\(disabled))")
      try await worker.client.publish(2)
      let cut = try #require(try await worker.cut())
      #expect(cut.parked == 2 && cut.pairs.isEmpty && cut.batch == nil)
      #expect(try await worker.claim([paused, disabled]).isEmpty)
      try await worker.client.execute("SELECT outbox.resume(\(paused)), outbox.resume(\(disabled))")
      #expect(try await worker.claim([paused, disabled]).map(\.endpoint) == [paused, paused])
      try await worker.client.publish(1)
      #expect(try await worker.drain().flatMap(\.pairs).count == 2)
    }
  }

  @Test func notBeforeIsParkedAndDueThen() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.execute(
        """
        SELECT outbox.publish('t', '{"n": 1}', not_before => now() + interval '1 hour');
        SELECT outbox.publish('t', '{"n": 2}', not_before => now() - interval '1 hour');
        """
      )
      #expect(try await worker.cut()?.direct.map(\.event.number) == [2])
      #expect(try await worker.claim([endpoint]).isEmpty)
      let due = "SELECT due_at = (SELECT not_before FROM outbox.event WHERE id = event_id) FROM outbox.delivery"
      #expect(try await worker.client.value(due) == "t")
      let waiting = try await worker.client.store { try $0.waiting() }
      #expect(waiting.count == 1 && waiting[0].dueIn > .seconds(3500) && waiting[0].dueIn <= .seconds(3600))
      try await worker.client.execute("UPDATE outbox.delivery SET due_at = clock_timestamp()")
      #expect(try await worker.claim([endpoint]).map(\.event.number) == [1])
    }
  }

  @Test func capacityIsKeptPerEndpointInTotalAndInBytes() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let (busy, free) = (try await worker.client.addEndpoint(), try await worker.client.addEndpoint())
      func direct(_ cut: Cut?) -> [Int64: Int] {
        (cut?.pairs ?? []).reduce(into: [:]) { $0[$1.endpoint, default: 0] += 1 }
      }
      try await worker.client.publish(10)
      #expect(direct(try await worker.cut(perEndpoint: 4, busy: [busy], slots: [1])) == [busy: 1, free: 4])
      try await worker.client.publish(10)
      let cut = try await worker.cut(direct: 7)
      #expect(direct(cut).values.reduce(0, +) == 7 && cut?.parked == 13)
      try await worker.client.publish(10)
      #expect(direct(try await worker.cut(bytes: 1)).isEmpty)
      try await worker.client.publish(10)
      #expect(direct(try await worker.cut(busy: [busy, free], slots: [0, -1])).isEmpty)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == 80 - 5 - 7)
    }
  }

  @Test func endpointsThatDoNotMatchCostNothing() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      for _ in 0..<3 { try await client.addEndpoint("event_types => '{t}'") }
      try await addOthers(client, 1...10)
      try await client.publish(5_000)  // the log's own indexes shall have their height
      _ = try await worker.drain()
      for _ in 0..<4 { _ = try await cost(worker) }
      let few = try await cost(worker)
      try await addOthers(client, 11...10_000)
      try await client.execute("VACUUM ANALYZE outbox.endpoint, outbox.subscription")
      for _ in 0..<2 { _ = try await cost(worker) }
      let many = try await cost(worker)
      print("buffers of a cut of 100: 13 endpoints: \(few), 10,003: \(many)")
      #expect(many <= few + 60)
    }
  }

  private func addOthers(_ client: Client, _ numbers: ClosedRange<Int>) async throws {
    try await client.execute(
      """
      INSERT INTO outbox.endpoint (url, event_types)
      SELECT 'https://example.com/' || n, ARRAY['other.' || n, 'other.' || n || '.*']
      FROM generate_series(\(numbers.lowerBound), \(numbers.upperBound)) n
      """
    )
  }

  private func cost(_ worker: Worker) async throws -> Int {
    try await worker.client.publish(100)
    let lines = try await worker.client.column(
      "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM outbox.cut(\(worker.id), 100, 500, 500, 10000000)"
    )
    return try #require(PlanLog.buffers(in: lines.joined(separator: "\n")))
  }
}
