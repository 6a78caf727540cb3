import Foundation
import OutboxStore
import Postgres
import Testing

/// Endpoints, dispatchers, partitions and transactions: each trouble is found, with what to do.
@Suite struct FindingTests {
  @Test func failingThenDeadEndpoint() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("failure_threshold => 4")
      try await worker.client.publish(3)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(.failed) { $0.error = "refused" }, finished: [cut.batch!])
      #expect(try await worker.client.findings().map(\.severity) == ["ok"], "not for long enough")
      try await worker.client.execute("UPDATE outbox.endpoint_health SET failing_since = now() - interval '1 hour'")
      var found = try await worker.client.onlyFinding()
      #expect(found.severity == "warning" && found.finding == "failing endpoint")
      #expect(found.subject == "endpoint \(endpoint) (https://example.com/hook)")
      #expect(found.detail.contains("3 failures in a row since") && found.detail.contains("refused"))

      try await worker.record(try await worker.claim([endpoint], slots: 1).map { $0.outcome(.failed) })
      found = try await worker.client.onlyFinding()
      #expect(found.finding == "dead endpoint" && found.detail.contains("circuit open, 3 waiting"))
      #expect(found.statements.count == 2)
      try await worker.client.execute(found.statements[0])
      #expect(try await worker.client.value("SELECT state FROM outbox.endpoint") == "paused")
      try await worker.client.execute(found.statements[1])
      #expect(try await worker.claim([endpoint]).count == 3)
    }
  }

  @Test(arguments: [("disable", "warning", "disabled"), ("pause", "info", "paused")])
  func endpointThatIsOffWithABacklog(function: String, severity: String, state: String) async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(2)
      _ = try await worker.cut(direct: 0)
      try await worker.client.execute("SELECT outbox.\(function)(\(endpoint))")
      let found = try await worker.client.onlyFinding()
      #expect(found.severity == severity && found.finding == "\(state) endpoint with a backlog")
      #expect(found.detail.hasPrefix("2 deliveries wait"))
      try await worker.client.execute(found.statements[0])
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
    }
  }

  @Test func filterThatFailsIsFoundUntilItIsCorrected() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("filter => 'strict $.payload.missing'")
      try await worker.client.publish(3)
      #expect(try await worker.cut()?.pairs.isEmpty == true)
      let found = try await worker.client.onlyFinding()
      #expect(found.severity == "warning" && found.finding == "failing filter")
      #expect(found.subject == "endpoint \(endpoint) (https://example.com/hook)")
      #expect(found.detail.hasPrefix("its filter failed for 3 events since") && found.detail.contains("missing"))
      // What is printed leaves the filter to the reader, and is no filter itself.
      #expect(try await worker.client.refusal(found.statements[0]).sqlState == "42601")
      try await worker.client.execute("UPDATE outbox.endpoint SET filter = '$.payload.n'")
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
      #expect(try await worker.client.value(found.statements[1]) == "3")
      #expect(try await worker.claim([endpoint]).count == 3)

      try await worker.client.execute("UPDATE outbox.endpoint SET filter = 'strict $.payload.missing'")
      try await worker.client.publish(1)
      _ = try await worker.cut()
      try await worker.client.becomes("outbox_operator")
      let again = try await worker.client.onlyFinding()
      try await worker.client.execute(again.statements[2])
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
    }
  }

  @Test func deadLettersAreFoundAndRedriven() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(2)
      let cut = try #require(try await worker.cut())
      try await worker.record(
        cut.outcomes(.failed) {
          $0.reason = "exhausted"
          $0.error = "refused"
        },
        finished: [cut.batch!]
      )
      var found = try await worker.client.onlyFinding()
      #expect(found.severity == "warning" && found.finding == "dead letters")
      #expect(found.detail.hasPrefix("2 deliveries were given up (exhausted)") && found.detail.hasSuffix(": refused"))
      #expect(try await worker.client.rows(found.statements[0]).count == 2)
      #expect(try await worker.client.value(found.statements[1]) == "2")
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed, reason: "expired") })
      found = try await worker.client.onlyFinding()
      try await worker.client.execute("SELECT outbox.discard(id) FROM outbox.dead_letter")
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
      #expect(try await worker.client.value(found.statements[1]) == "0", "what was discarded stays so")
    }
  }

  @Test func eventsThatNobodyCutsAreFound() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.publish(3)
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
      let found = try await worker.client.onlyFinding("uncut_after => '0 s'")
      #expect(
        found.severity == "critical" && found.finding == "events not cut" && found.detail.hasPrefix("3 committed")
      )
      #expect(try await worker.client.rows(found.statements[0]).count > 0)
      _ = try await worker.drain()
      #expect(try await worker.client.findings("uncut_after => '0 s'").map(\.severity) == ["ok"])
    }
  }

  @Test func missingPartitionIsMadeByMaintenance() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      for (days, severity) in [(1, "info"), (0, "warning")] {
        let day = try await worker.client.value(
          "SELECT to_char((now() AT TIME ZONE 'UTC')::date + \(days), 'YYYYMMDD')"
        )!
        try await worker.client.execute("DROP TABLE outbox.attempt_packed_\(day)")
        let found = try await worker.client.onlyFinding()
        #expect(found.severity == severity && found.finding == "missing partition")
        #expect(found.subject == "attempt_packed_\(day)")
        try await worker.client.execute(found.statements[0])
        #expect(try await worker.client.findings().map(\.severity) == ["ok"])
      }
    }
  }

  @Test func longTransactionIsNamedAndCanBeEnded() async throws {
    try await withDatabase { database in
      let (worker, holder) = (try await Worker(database), database.client())
      let pid = try await holder.pid()
      try await holder.execute("SET application_name = 'app'; BEGIN; SELECT pg_current_xact_id()")
      let found = try await worker.client.findings("transaction_after => '0 s'").filter {
        $0.subject.contains("session \(pid) ")
      }
      #expect(found.map(\.finding) == ["long transaction"] && found.map(\.severity) == ["warning"])
      #expect(found[0].subject == "session \(pid) (postgres@\(database.name), app)")
      #expect(found[0].detail.contains("idle in transaction") && found[0].detail.contains("its own events"))
      try await worker.client.execute(found[0].statements[0])
      try await eventually("the session to end") {
        try await worker.client.findings("transaction_after => '0 s'").allSatisfy {
          !$0.subject.contains("session \(pid) ")
        }
      }
    }
  }

  @Test func forgottenPreparedTransactionIsNamedAndCanBeEnded() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.execute(
        "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'it''s_\(database.name)'"
      )
      let found = try await worker.client.findings("transaction_after => '0 s'").filter {
        $0.subject.hasPrefix("prepared")
      }
      #expect(found.count == 1 && found[0].subject == "prepared transaction 'it''s_\(database.name)'")
      #expect(found[0].statements.count == 2)
      try await worker.client.execute(found[0].statements[1])
      #expect(
        try await worker.client.int("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()") == 0
      )
    }
  }

  @Test func noLiveDispatcherIsWorseWhenSomethingWaits() async throws {
    try await withDatabase { database in
      let client = database.client()
      #expect(try await client.onlyFinding().severity == "warning")
      try await client.publish(1)
      let found = try await client.onlyFinding()
      #expect(found.severity == "critical" && found.finding == "no live dispatcher")
      _ = try await Worker(database)
      #expect(try await client.findings().map(\.severity) == ["ok"])
    }
  }

  @Test func whatCannotBeCheckedIsSaid() async throws {
    try await withDatabase { database in
      let (owner, limited) = (database.client(), database.client())
      let role = "limited_\(database.name)"
      _ = try await Worker(database)
      try await owner.execute(
        """
        CREATE ROLE \(role);
        GRANT USAGE ON SCHEMA outbox TO \(role);
        GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA outbox TO \(role);
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox TO \(role);
        """
      )
      try await limited.becomes(role)
      let found = try await limited.onlyFinding()
      #expect(found.severity == "unchecked" && found.finding == "long transaction")
      try await owner.execute(found.statements[0])
      #expect(try await limited.findings().map(\.severity) == ["ok"])
      try await owner.execute("DROP OWNED BY \(role); DROP ROLE \(role)")
    }
  }

  @Test func worstComesFirst() async throws {
    try await withDatabase { database in
      let (dead, live) = (try await Worker(database), try await Worker(database))
      let endpoint = try await dead.client.addEndpoint("ordered => true")
      try await dead.client.publish(3, key: "k")
      _ = try await dead.cut()
      try await dead.client.execute(
        """
        UPDATE outbox.dispatcher SET expires_at = now() - interval '1 min' WHERE id = \(dead.id);
        DELETE FROM outbox.delivery WHERE ready;
        SELECT outbox.pause(\(endpoint))
        """
      )
      let found = try await live.client.findings().map(\.severity)
      #expect(found == ["critical", "warning", "info", "ok"])
    }
  }
}
