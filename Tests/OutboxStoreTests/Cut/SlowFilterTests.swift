import Foundation
import OutboxStore
import Postgres
import Testing

/// One tenant's filter must not stop everybody's deliveries.
@Suite struct SlowFilterTests {
  /// As many steps as the array has elements, squared; a timeout can end it.
  static let slow = "$.payload.a[*] ? (exists($.payload.a[*] ? (@ < 0)))"

  static func event(elements: Int) -> String {
    """
    INSERT INTO outbox.event (type, payload)
    SELECT 't', jsonb_build_object('n', 1, 'a', jsonb_agg(i)) FROM generate_series(1, \(elements)) i
    """
  }

  /// Hours for one event: alone, with the timeout a dispatcher has.
  @Test func filterThatTheTimeoutEndsDisablesItsEndpointAndTheNextCutGoesOn() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      let good = try await client.addEndpoint("filter => '$.payload.n == 1'")
      let bad = try await client.addEndpoint("filter => '\(Self.slow)'")
      let plain = try await client.addEndpoint()
      try await client.execute("SELECT outbox.stamp_subscriptions()")
      try await client.publish(2)
      try await client.execute(Self.event(elements: 100_000))
      try await client.publish(1)
      try await client.execute("SET statement_timeout = '3 s'")
      // Up to the event that takes too long, then nothing but the end of that filter, then the rest.
      let first = try #require(try await worker.cut())
      #expect(first.events == 2 && first.more && first.direct.map(\.endpoints) == [[good, plain], [plain]])
      #expect(try await client.value("SELECT state FROM outbox.endpoint WHERE id = \(bad)") == "disabled")
      let rest = try #require(try await worker.cut())
      #expect(rest.events == 2 && !rest.more && rest.direct.map(\.endpoints) == [[good, plain], [good, plain]])
      let reason = try await client.value("SELECT disabled_because FROM outbox.endpoint WHERE id = \(bad)")
      #expect(reason?.hasPrefix("its filter takes too long (evaluations: ") == true)
      // From where a replay finds everything it may have missed.
      #expect(
        try await client.value(
          "SELECT disabled_at = (SELECT min(created_at) FROM outbox.event) FROM outbox.endpoint WHERE id = \(bad)"
        ) == "t"
      )
      let found = try await client.findings()
      #expect(found.map(\.finding) == ["endpoint disabled by itself", "conservation"])
      #expect(found[1].detail.hasPrefix("7 deliveries ") && found[1].detail.contains("; 0 missing"))
    }
  }

  /// The first event of all: nothing can be cut before the filter is out of the way, and then everything.
  @Test func slowFirstEventIsCutByTheNextCut() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let bad = [try await worker.client.addEndpoint("filter => '\(Self.slow)'")]
      let failing = try await worker.client.addEndpoint("filter => 'strict $.payload.x'")
      let plain = try await worker.client.addEndpoint()
      try await worker.client.execute(Self.event(elements: 100_000))
      try await worker.client.execute("SET statement_timeout = '2 s'")
      let before = try await worker.client.int("SELECT max(id) FROM outbox.position")
      #expect(try await worker.cut() == nil)
      #expect(try await worker.client.int("SELECT max(id) FROM outbox.position") == before)
      #expect(try await worker.cut()?.pairs.map(\.endpoint) == [plain])
      #expect(
        try await worker.client.column("SELECT id FROM outbox.endpoint WHERE state = 'disabled'") == ["\(bad[0])"]
      )
      let failures = "SELECT failures FROM outbox.filter_failure WHERE endpoint_id = \(failing)"
      #expect(try await worker.client.value(failures) == "1", "counted in the cut that was one")
    }
  }

  /// None of them slow, and together too long for one event: the next cut would get no further than this one, for ever.
  @Test func filtersThatTogetherTakeTooLongDoNotStopTheLog() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      let plain = try await client.addEndpoint()
      try await client.execute(
        "SELECT count(outbox.add_endpoint('https://example.com', filter => '\(Self.slow)')) FROM generate_series(1, 4000)"
      )
      try await client.execute("SELECT outbox.stamp_subscriptions()")
      try await client.execute(Self.event(elements: 150))
      try await client.publish(1)
      try await client.execute("SET statement_timeout = '10 s'")
      // Where the machine stands still in one, that one is disabled first.
      var first: Cut?
      for _ in 0..<5 where first == nil { first = try await worker.cut() }
      #expect(first?.direct.map(\.endpoints) == [[plain]] && first?.more == true)
      #expect(try await worker.cut()?.direct.map(\.endpoints) == [[plain]])
      let failed = try await client.int("SELECT count(*) FROM outbox.filter_failure WHERE error LIKE '%no time left%'")
      #expect((1...4000).contains(failed))
      // None of these is owed, none is lost, and each is named.
      try await client.execute("SET statement_timeout = 0")
      let skipped = try await client.int(
        "SELECT count(*) FROM outbox.skipped s JOIN outbox.endpoint e ON e.id = s.endpoint_id WHERE e.state = 'enabled'"
      )
      #expect(skipped == failed)
      #expect(try await client.value("SELECT missing FROM outbox.conservation('-infinity')") == "0")
      #expect(try await client.proveAll() >= 1)
      let total = try await client.int("SELECT count(*) FROM outbox.skipped")
      #expect(
        try await client.rows("SELECT pairs, skipped, missing FROM outbox.conservation('-infinity')") == [
          ["2", "\(total)", "0"]
        ]
      )
      let found = try #require(try await client.findings().first { $0.finding == "conservation" })
      #expect(found.severity == "ok" && found.detail.contains("besides, \(total) were passed over"))
      #expect(try await client.rows(found.statements[0]).count == total)
    }
  }

  /// Not slow enough for a timeout, but again and again.
  @Test func filterThatTakesASecondInSeveralEvaluationsIsDisabled() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let bad = try await worker.client.addEndpoint("filter => '\(Self.slow)'")
      for _ in 0..<200 { try await worker.client.execute(Self.event(elements: 1_000)) }
      let plain = try await worker.client.addEndpoint()
      let cuts = try await worker.drain()
      #expect(cuts.map(\.events).reduce(0, +) == 200)
      #expect(cuts.flatMap(\.pairs).map(\.endpoint) == Array(repeating: plain, count: 200))
      #expect(try await worker.client.value("SELECT state FROM outbox.endpoint WHERE id = \(bad)") == "disabled")
    }
  }

  /// PostgreSQL's loop over two sequences hears no timeout. What is small enough is compared, what is not is a failure.
  @Test func twoLongArraysAreNotCompared() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let compares = try await worker.client.addEndpoint("filter => '$.payload.a == $.payload.b'")
      let literal = try await worker.client.addEndpoint("filter => '$.payload.a == 7'")
      try await worker.client.execute("SELECT outbox.stamp_subscriptions()")
      try await worker.client.execute(
        """
        INSERT INTO outbox.event (type, payload)
        SELECT 't', jsonb_build_object('a', jsonb_agg(i), 'b', jsonb_agg(-i + CASE WHEN n < 1000 THEN 2 * i ELSE 0 END))
        FROM (VALUES (100), (60000)) size(n), generate_series(1, n) i GROUP BY n ORDER BY n
        """
      )
      #expect(try await worker.cut()?.direct.map(\.endpoints) == [[compares, literal], [literal]])
      let failure = try await worker.client.rows("SELECT endpoint_id, failures, error FROM outbox.filter_failure")[0]
      #expect(failure[0] == "\(compares)" && failure[1] == "1" && failure[2]?.contains("64 KiB") == true)
      #expect(
        try await worker.client.rows("SELECT pairs, missing FROM outbox.conservation('-infinity')") == [["3", "0"]]
      )
    }
  }

  /// The slowest regular expressions that may be set, on a large text. (On 1 MiB a quarter of a second, on a quiet machine.)
  @Test(arguments: [
    #"(a|b)*a(a|b){20}c"#, #"(a+)+(b+)+c$"#, #"((a|b)*(b|a)*)*c"#, #"(.*a){9}.*c"#, "[ab]*[ab]*[ab]*[ab]*c",
  ])
  func regularExpressionThatMayBeSetIsFastEnough(pattern: String) async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint(#"filter => '$.payload like_regex "\#(pattern)"'"#)
      try await worker.client.execute(
        """
        SELECT setseed(0.5);
        INSERT INTO outbox.event (type, payload) SELECT 't', to_jsonb(string_agg(CASE WHEN random() < 0.5 THEN 'a' ELSE 'b' END, ''))
        FROM generate_series(1, 100000)
        """
      )
      try await worker.client.execute("SET statement_timeout = '60 s'")
      _ = try await worker.cut()
      #expect(try await worker.client.value("SELECT state FROM outbox.endpoint WHERE id = \(endpoint)") == "enabled")
    }
  }

  /// Somebody ends a cut that no filter is to blame for.
  @Test func cancelledCutBlamesNoFilter() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("filter => '$.payload.n == 1'")
      try await worker.client.publish(20_000)
      try await worker.client.execute("SET statement_timeout = '30 ms'")
      await #expect { while try await worker.cut(events: 20_000) == nil {} } throws: {
        ($0 as? PostgresError)?.sqlState == "57014"
      }
      try await worker.client.execute("SET statement_timeout = 0")
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.endpoint WHERE state = 'enabled'") == 1)
      #expect(try await worker.drain().map(\.events).reduce(0, +) == 20_000)
    }
  }
}
