import Foundation
import OutboxStore
import Postgres
import Testing

/// Martlet's own events: what it does to an endpoint by itself, and what it gives up.
@Suite struct SystemEventTests {
  private let own = "SELECT type FROM outbox.event WHERE type LIKE 'martlet.%' ORDER BY id"

  private func fail(_ worker: Worker, _ endpoint: Int64, _ change: (inout Outcome) -> Void = { _ in }) async throws {
    try await worker.client.execute(
      "UPDATE outbox.endpoint_health SET probe_at = clock_timestamp() WHERE state <> 'closed'"
    )
    let outcomes = try await worker.claim([endpoint], slots: 1).map {
      var outcome = $0.outcome(.failed)
      outcome.status = 500
      outcome.error = "it answered \"500\""
      change(&outcome)
      return outcome
    }
    #expect(outcomes.count == 1)
    try await worker.record(outcomes)
  }

  private func prepared(_ database: Database, watcher types: String? = "{martlet.*}", events: Int = 10) async throws
    -> (Worker, Int64)
  {
    let worker = try await Worker(database)
    let endpoint = try await worker.client.addEndpoint("failure_threshold => 2, tenant => 'a'")
    if let types { try await worker.client.addEndpoint("event_types => '\(types)', tenant => 'a'") }
    try await worker.client.execute(
      "INSERT INTO outbox.event (type, tenant, payload) SELECT 't', 'a', to_jsonb(n) FROM generate_series(1, \(events)) n"
    )
    _ = try await worker.cut(direct: 0)
    return (worker, endpoint)
  }

  @Test func circuitThatOpensAndClosesIsToldOnceEach() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await prepared(database)
      for _ in 0..<4 { try await fail(worker, endpoint) }  // opens, and two probes fail
      #expect(try await worker.client.column(own) == ["martlet.endpoint.failing"])
      let payload = try await worker.client.rows(
        """
        SELECT tenant, key, payload - 'failing_since',
          (payload ->> 'failing_since')::timestamptz BETWEEN now() - interval '1 min' AND clock_timestamp()
        FROM outbox.event WHERE type LIKE 'martlet.%'
        """
      )
      #expect(
        payload == [
          [
            "a", "\(endpoint)",
            #"{"url": "https://example.com/hook", "state": "enabled", "tenant": "a", "circuit": "open", "endpoint": \#(endpoint), "last_error": "it answered \"500\"", "consecutive_failures": 2}"#,
            "t",
          ]
        ]
      )
      try await worker.client.execute("UPDATE outbox.endpoint_health SET probe_at = clock_timestamp()")
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome() })
      #expect(try await worker.client.column(own) == ["martlet.endpoint.failing", "martlet.endpoint.recovered"])
      let state =
        "SELECT payload ->> 'circuit', payload -> 'failing_since' FROM outbox.event WHERE type LIKE '%recovered'"
      #expect(try await worker.client.rows(state) == [["closed", "null"]])
    }
  }

  @Test func nothingIsPublishedThatNobodyOfTheTenantAskedFor() async throws {
    for types in [nil, "{*}", "{martlet.endpoint.recovered}"] {
      try await withDatabase { database in
        let (worker, endpoint) = try await prepared(database, watcher: types)
        try await worker.client.addEndpoint("event_types => '{martlet.*}', tenant => 'b'")
        for _ in 0..<2 { try await fail(worker, endpoint) }
        try await worker.record(
          try await worker.claim([endpoint]).map { $0.outcome(.failed, reason: "exhausted") }
        )
        #expect(try await worker.client.column(own) == [], "\(types ?? "nobody")")
      }
    }
  }

  /// All in one transaction, or not at all.
  @Test func eventAndChangeCommitTogether() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await prepared(database)
      try await worker.client.execute("BEGIN")
      for _ in 0..<2 { try await fail(worker, endpoint) }
      #expect(try await worker.client.column(own).count == 1)
      try await worker.client.execute("ROLLBACK")
      #expect(try await worker.client.column(own) == [])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.endpoint_health") == 0)
    }
  }

  @Test func recordThatIsRepeatedTellsNothingTwice() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await prepared(database)
      let outcomes = try await worker.claim([endpoint], slots: 3).map {
        var outcome = $0.outcome(.failed, reason: "gone")
        outcome.duration = .milliseconds(7)
        return outcome
      }
      for again in [false, true, true] { try await worker.record(outcomes, again: again) }
      #expect(
        try await worker.client.column(own).sorted() == [
          "martlet.endpoint.dead_letter", "martlet.endpoint.dead_letter", "martlet.endpoint.dead_letter",
          "martlet.endpoint.disabled", "martlet.endpoint.failing",
        ]
      )
    }
  }

  @Test func whatMartletDisablesIsTold() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await prepared(database)
      try await fail(worker, endpoint)
      try await worker.client.execute("UPDATE outbox.endpoint_health SET failing_since = now() - interval '300 days'")
      try await fail(worker, endpoint)
      let told = try await worker.client.rows(
        """
        SELECT type, payload ->> 'state', payload ->> 'disabled_because' LIKE 'nothing but failures%' FROM outbox.event
        WHERE type LIKE 'martlet.%' ORDER BY type
        """
      )
      #expect(
        told == [["martlet.endpoint.disabled", "disabled", "t"], ["martlet.endpoint.failing", "disabled", "t"]]
      )
    }
  }

  @Test func whatAnOperatorDoesIsNotTold() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await prepared(database)
      for _ in 0..<2 { try await fail(worker, endpoint) }
      try await worker.client.execute(
        "SELECT outbox.pause(\(endpoint)), outbox.disable(\(endpoint)), outbox.resume(\(endpoint))"
      )
      #expect(try await worker.client.column(own) == ["martlet.endpoint.failing"])
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome() })
      #expect(try await worker.client.column(own) == ["martlet.endpoint.failing"], "resume closed it, not the success")
    }
  }

  @Test func deadLetterIsToldWithWhatItIs() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await prepared(database, events: 1)
      try await fail(worker, endpoint) { $0.reason = "exhausted" }
      let told = try await worker.client.rows(
        """
        SELECT e.tenant, e.payload ->> 'dead_letter' = l.id::text, e.payload ->> 'event' = l.event_id::text,
          e.payload - '{dead_letter,event}'::text[]
        FROM outbox.event e, outbox.dead_letter l WHERE e.type = 'martlet.endpoint.dead_letter'
        """
      )
      #expect(
        told == [
          [
            "a", "t", "t",
            #"{"key": null, "url": "https://example.com/hook", "type": "t", "reason": "exhausted", "tenant": "a", "attempts": 1, "endpoint": \#(endpoint), "holds_key": false, "last_error": "it answered \"500\"", "last_status": 500}"#,
          ]
        ]
      )
    }
  }

  /// The one who wants to be told is the one who cannot be reached.
  @Test func deadLetterOfMartletsOwnEventIsNotTold() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("event_types => '{t,martlet.*}', failure_threshold => 1000")
      try await worker.client.publish(3)
      var died = 0
      for _ in 0..<5 {
        _ = try await worker.cut(direct: 0)
        let claimed = try await worker.claim([endpoint])
        died += claimed.count
        if !claimed.isEmpty { try await worker.record(claimed.map { $0.outcome(.failed, reason: "exhausted") }) }
      }
      #expect(died == 6)
      #expect(try await worker.client.column(own) == Array(repeating: "martlet.endpoint.dead_letter", count: 3))
    }
  }

  @Test func dispatchersRoleMayPublishThem() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await prepared(database)
      try await worker.client.execute(
        "UPDATE outbox.endpoint SET on_dead_letter = 'hold', ordered = true WHERE id = \(endpoint)"
      )
      try await worker.client.becomes("outbox_dispatcher")
      let claimed = try await worker.claim([endpoint], slots: 3)
      try await worker.record(claimed.map { $0.outcome(.failed, reason: "gone") })
      #expect(try await worker.client.column(own).count == 5)
    }
  }
}
