import Foundation
import OutboxStore
import Postgres
import Testing

/// `endpoint.filter`: which events of its types an endpoint gets.
@Suite struct FilterTests {
  /// A filter, and of the events below those that it lets pass.
  static let filters: [(filter: String, numbers: [Int])] = [
    ("$.payload.n > 2", [3, 4]),
    ("$.payload ? (@.n > 2)", [3, 4]),
    (#"$.payload.n > 1 && $.metadata.region == "eu""#, [2, 4]),
    (#"$.type == "a.b""#, [2]),
    (#"$.tenant == """#, [1, 2, 3, 4]),
    (#"$.key == "k""#, [3]),
    ("$.key == null", [1, 2, 4]),
    // The first item decides, whatever follows.
    ("$.payload.flags[*]", [4]),
    ("$.payload.flags[last]", [3]),
    // A path that finds nothing, or a null, does not match; one that finds 0, "" or {} does.
    ("$.payload.nothing", []),
    ("$.payload.none", []),
    ("$.payload.zero", [1]),
    ("exists($.payload.zero)", [1]),
    (#"$.payload.s like_regex "^X" flag "i""#, [2]),
    (#"$.payload.s starts with "x""#, [2]),
    // Without a zone, it is UTC, whatever the session says.
    (#"$.payload.at.datetime() < "2026-01-01T00:00:00+00:00".datetime()"#, [1]),
    ("$", [1, 2, 3, 4]),
    ("true", [1, 2, 3, 4]),
    ("false", []),
  ]

  private static let events = """
    INSERT INTO outbox.event (type, key, payload, metadata) VALUES
    ('a', NULL, '{"n": 1, "none": null, "zero": 0, "at": "2025-12-31T23:30:00"}', '{"region": "us"}'),
    ('a.b', NULL, '{"n": 2, "s": "x1"}', '{"region": "eu"}'),
    ('a', 'k', '{"n": 3, "flags": [false, true]}', '{}'),
    ('a', NULL, '{"n": 4, "flags": [true, false]}', '{"region": "eu"}')
    """

  @Test func firstItemOfTheResultDecides() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.execute("SET timezone = 'America/New_York'")
      var endpoints: [Int64: (filter: String, numbers: [Int])] = [:]
      for one in Self.filters { endpoints[try await worker.client.addEndpoint("filter => '\(one.filter)'")] = one }
      try await worker.client.execute("SELECT outbox.stamp_subscriptions()")
      try await worker.client.execute(Self.events)
      let cut = try #require(try await worker.cut())
      var got: [Int64: [Int]] = [:]
      let numbers = try await worker.client.rows("SELECT id, payload -> 'n' FROM outbox.event").reduce(into: [:]) {
        $0[$1[0]!] = Int($1[1]!)
      }
      for pair in cut.pairs { got[pair.endpoint, default: []].append(numbers[pair.event.uuidString.lowercased()]!) }
      for (endpoint, one) in endpoints {
        #expect((got[endpoint] ?? []).sorted() == one.numbers, "\(one.filter)")
      }
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.filter_failure") == 0)
      // The reconciler, the replay and the resend come to the same.
      let pairs = Self.filters.map(\.numbers.count).reduce(0, +)
      #expect(
        try await worker.client.rows("SELECT pairs, in_flight, missing FROM outbox.conservation('-infinity')")
          == [["\(pairs)", "\(pairs)", "0"]]
      )
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      for (endpoint, one) in endpoints {
        let again = try await worker.client.int("SELECT outbox.replay(\(endpoint), '-infinity')")
        #expect(again == one.numbers.count, "\(one.filter)")
      }
      try await worker.client.execute("DELETE FROM outbox.delivery")
      #expect(try await worker.client.int("SELECT sum(outbox.resend(id)) FROM outbox.event") == pairs)
    }
  }

  @Test func resendToOneEndpointAsksNoFilter() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("filter => '$.payload.n > 5', event_types => '{other}'")
      try await worker.client.publish(1)
      #expect(try await worker.cut()?.pairs.isEmpty == true)
      #expect(try await worker.client.int("SELECT outbox.resend(id) FROM outbox.event") == 0)
      #expect(try await worker.client.int("SELECT outbox.resend(id, \(endpoint)) FROM outbox.event") == 1)
      #expect(try await worker.claim([endpoint]).count == 1)
    }
  }

  /// jsonpath has no equality, so the two cannot simply be made distinct.
  @Test func twoPatternsOfAFilteredEndpointGiveOneDelivery() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("event_types => '{*, a.*, a.b}', filter => '$.payload.n > 1'")
      try await worker.client.publish(2, type: "a.b")
      #expect(try await worker.cut()?.direct.map(\.event.number) == [2])
    }
  }

  @Test func filterDecidesForWhatIsParkedToo() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let ordered = try await worker.client.addEndpoint("ordered => true, filter => '$.payload.n != 2'")
      try await worker.client.publish(3, key: "k")
      #expect(try await worker.cut()?.parked == 2)
      let first = try await worker.claim([ordered])
      #expect(first.map(\.event.number) == [1])
      try await worker.record(first.map { $0.outcome() })
      #expect(try await worker.claim([ordered]).map(\.event.number) == [3])
    }
  }

  /// What fails when it is evaluated, and how that reads.
  static let failing: [(filter: String, words: String)] = [
    ("strict $.payload.missing", "does not contain key"),
    ("strict $.payload.missing > 1", "unknown"),
    ("$.payload.s > 1", "unknown"),
    ("$.payload.n / 0 > 1", "unknown"),
    ("$.payload.n / 0", "division by zero"),
    ("$.payload.s.double()", "double precision"),
    ("$.payload.s.datetime()", "datetime format is not recognized"),
    ("$.payload.n.datetime()", "can only be applied to a string"),
  ]

  @Test func failuresDoNotMatchAndAreCountedOncePerCut() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let all = try await worker.client.addEndpoint()
      var endpoints: [Int64: (filter: String, words: String)] = [:]
      for one in Self.failing { endpoints[try await worker.client.addEndpoint("filter => '\(one.filter)'")] = one }
      for round in 1...2 {
        try await worker.client.execute(
          "INSERT INTO outbox.event (type, payload) SELECT 't', '{\"n\": 1, \"s\": \"x\"}' FROM generate_series(1, 5)"
        )
        #expect(try await worker.cut()?.pairs.map(\.endpoint) == Array(repeating: all, count: 5))
        let status = try await worker.client.rows(
          "SELECT id, filter_failures, filter_error, filter_failed_at > now() - interval '1 min' FROM outbox.endpoint_status"
        )
        for row in status where endpoints[Int64(row[0]!)!] != nil {
          let one = endpoints[Int64(row[0]!)!]!
          #expect(row[1] == "\(round * 5)" && row[2]?.contains(one.words) == true && row[3] == "t", "\(row)")
        }
      }
      let writes = "SELECT max(n_tup_ins + n_tup_upd) FROM pg_stat_user_tables WHERE relname = 'filter_failure'"
      await worker.client.session.disconnect()
      try await eventually("the counters") { try await database.client().int(writes) == endpoints.count * 2 }
    }
  }

  @Test func nullThatAPathFindsIsNoFailure() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("filter => '$.payload.n'")
      try await worker.client.addEndpoint("filter => 'strict $.payload.n'")
      try await worker.client.execute("INSERT INTO outbox.event (type, payload) VALUES ('t', '{\"n\": null}')")
      #expect(try await worker.cut()?.pairs.isEmpty == true)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.filter_failure") == 0)
    }
  }

  /// Among many filters of one event only the one that fails does not match.
  @Test func failureOfOneFilterLeavesTheOthersAlone() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      var good: [Int64] = []
      for n in 0..<20 {
        let fails = n % 3 == 1
        let filter = fails ? "strict $.payload.missing" : "$.payload.n == 1"
        let endpoint = try await worker.client.addEndpoint("filter => '\(filter)'")
        if !fails { good.append(endpoint) }
      }
      try await worker.client.publish(2)
      #expect(try await worker.cut()?.direct.map(\.endpoints) == [good])
    }
  }

  /// An item that was found before the failure counts, as everywhere in PostgreSQL where errors are silent.
  @Test func itemFoundBeforeAFailureDecides() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("filter => '$.payload[*].double()'")
      try await worker.client.execute(
        "INSERT INTO outbox.event (type, payload) VALUES ('t', '[\"1\", \"x\"]'), ('t', '[\"x\", \"1\"]')"
      )
      #expect(try await worker.cut()?.pairs.map(\.endpoint) == [endpoint])
      #expect(try await worker.client.value("SELECT failures FROM outbox.filter_failure") == "1")
      #expect(try await worker.client.int("SELECT pairs FROM outbox.conservation('-infinity')") == 0, "not stamped")
    }
  }

  @Test func filterCanBeChangedAndTheBooksBalance() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      let endpoint = try await client.addEndpoint("filter => '$.payload.n > 2'")
      try await client.execute("SELECT outbox.stamp_subscriptions()")
      try await client.publish(3)
      #expect(try await worker.cut()?.direct.map(\.event.number) == [3])
      try await client.execute("UPDATE outbox.endpoint SET filter = '$.payload.n > 1', timeout = '1 s'")
      #expect(try await client.int("SELECT count(*) FROM outbox.past_subscription WHERE filter IS NOT NULL") == 1)
      try await client.execute("SELECT outbox.stamp_subscriptions()")
      try await client.publish(3)
      #expect(try await worker.cut()?.direct.map(\.event.number) == [2, 3])
      try await client.execute("UPDATE outbox.endpoint SET filter = NULL")
      try await client.execute("SELECT outbox.stamp_subscriptions()")
      try await client.publish(3)
      #expect(try await worker.cut()?.direct.map(\.event.number) == [1, 2, 3])
      let books = "SELECT events, pairs, in_flight, missing FROM outbox.conservation('-infinity')"
      #expect(try await client.rows(books) == [["9", "6", "6", "0"]])
      // Missing is what the filter of its time let pass.
      try await client.execute("DELETE FROM outbox.batch")
      #expect(try await client.rows(books) == [["9", "6", "0", "6"]])
      // Nothing has changed: the subscription goes on.
      try await client.execute("UPDATE outbox.endpoint SET filter = NULL, timeout = '2 s' WHERE id = \(endpoint)")
      #expect(try await client.int("SELECT count(*) FROM outbox.past_subscription") == 2)
    }
  }

  @Test func failuresAreForgottenWithTheirFilter() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("filter => 'strict $.payload.x'")
      try await worker.client.publish(1)
      _ = try await worker.cut()
      try await worker.client.execute("UPDATE outbox.endpoint SET timeout = '1 s'")
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.filter_failure") == 1)
      try await worker.client.execute("UPDATE outbox.endpoint SET filter = '$.payload.x' WHERE id = \(endpoint)")
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.filter_failure") == 0)
    }
  }

  /// A transaction that holds an endpoint, or has just changed its filter, makes no cut wait.
  @Test func cutWaitsForNobodyToWriteAFailureDown() async throws {
    try await withDatabase { database in
      let (worker, operator_) = (try await Worker(database), database.client())
      let endpoint = try await worker.client.addEndpoint("filter => 'strict $.payload.x'")
      let other = try await worker.client.addEndpoint("filter => 'strict $.payload.x'")
      try await worker.client.execute("SET lock_timeout = '2 s'")
      try await worker.client.publish(1)
      _ = try await worker.cut()
      try await operator_.execute(
        "BEGIN; UPDATE outbox.endpoint SET filter = '$.payload' WHERE id = \(endpoint); DELETE FROM outbox.endpoint WHERE id = \(other)"
      )
      try await worker.client.publish(1)
      #expect(try await worker.cut()?.pairs.isEmpty == true)
      try await operator_.execute("ROLLBACK")
      #expect(try await worker.client.column("SELECT failures FROM outbox.filter_failure") == ["1", "1"])
      try await worker.client.publish(1)
      _ = try await worker.cut()
      #expect(try await worker.client.column("SELECT failures FROM outbox.filter_failure") == ["2", "2"])
    }
  }

  static let unusable: [(filter: String, words: String)] = [
    ("$.payload.n > $limit", "variable"), ("$.payload ? (@.n == $x)", "variable"),
    (#"$.payload.s like_regex "(a+)\\1""#, "back reference"),
    (#"$.payload.s like_regex "(?=.*c)b""#, "looks around"), (#"$.payload.s like_regex "(?<!c)b""#, "looks around"),
    (#"$.payload.s like_regex "(a|b)*a(a|b){200}c""#, "too large"),
    (#"$.payload.s like_regex "((a{1,9}b){9}c){9}""#, "too large"),
    (#"$.payload.s like_regex "\#(String(repeating: "ab", count: 501))""#, "too large"),
    (#"$."like_regex " == 1 && $.b like_regex "(a)\\1""#, "back reference"),
    ("$.** ? (exists(@.**.x))", "more than once"),
    ("$.payload.\(String(repeating: "x", count: 4096))", "longer than 4096"),
  ]

  @Test func whatCannotWorkOrMayTakeTooLongIsRefused() async throws {
    try await withDatabase { database in
      let client = database.client()
      let endpoint = try await client.addEndpoint()
      for bad in Self.unusable {
        for statement in [
          "SELECT outbox.add_endpoint('https://example.com', filter => $1::text::jsonpath)",
          "UPDATE outbox.endpoint SET filter = $1::text::jsonpath WHERE id = \(endpoint)",
        ] {
          let error = try await client.refusal(statement, [.text(bad.filter)])
          #expect(error.sqlState == "23514" && error.message.contains(bad.words), "\(bad.filter): \(error)")
          #expect(error.message.hasPrefix("the filter is not usable: "))
        }
      }
      for broken in ["$.payload.n >", "payload.n > 1", "", "$.payload.s like_regex \"(\""] {
        let statement = "SELECT outbox.add_endpoint('https://example.com', filter => $1::text::jsonpath)"
        let error = try await client.refusal(statement, [.text(broken)])
        #expect(["42601", "22P02", "2201B"].contains(error.sqlState), "\(broken): \(error)")
      }
      #expect(try await client.int("SELECT count(*) FROM outbox.endpoint WHERE filter IS NOT NULL") == 0)
    }
  }

  @Test(arguments: [
    #"$.payload.s like_regex "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$""#,
    #"$.payload.s like_regex "(?:ab){3,}" flag "i""#, #"$.payload.s like_regex "\\1(?=" flag "q""#,
    #"$."$x" == "$y""#, #"$.payload.** ? (@.sku == "a")"#, #"$.payload."like_regex \"(a)\\1\"" == 1"#,
  ])
  func usableFilterIsTaken(filter: String) async throws {
    try await withDatabase { database in
      let taken = try await database.client().value(
        "SELECT outbox.add_endpoint('https://example.com', filter => $1::text::jsonpath)",
        [.text(filter)]
      )
      #expect(taken != nil)
    }
  }

  /// With the rights of its role alone.
  @Test func dispatcherNotesFailuresAndDisables() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("filter => 'strict $.payload.x'")
      try await worker.client.addEndpoint("filter => '\(SlowFilterTests.slow)'")
      try await worker.client.becomes("outbox_dispatcher")
      let publisher = database.client()
      for _ in 0..<3 {
        try await publisher.publish(1)
        try await publisher.execute(SlowFilterTests.event(elements: 3000))
        _ = try await worker.drain()
      }
      #expect(try await worker.client.value("SELECT failures FROM outbox.filter_failure") == "6")
      #expect(
        try await worker.client.column("SELECT state FROM outbox.endpoint ORDER BY id") == ["enabled", "disabled"]
      )
    }
  }
}
