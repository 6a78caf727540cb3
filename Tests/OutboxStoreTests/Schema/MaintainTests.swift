import Foundation
import OutboxStore
import Postgres
import Testing

@Suite struct MaintainTests {
  @Test func partitionsAreMadeAheadAndMaintenanceThenIsIdle() async throws {
    try await withDatabase { database in
      let client = database.client()
      let count = "SELECT count(*) FROM outbox.partitions() WHERE day >= (now() AT TIME ZONE 'UTC')::date"
      #expect(try await client.int(count) == 12)
      #expect(try await maintain(client) == [])
      try await client.execute("UPDATE outbox.setting SET value = '5' WHERE name = 'partitions_ahead'")
      #expect(try await client.store { try $0.maintainAll() }.filter { $0.hasPrefix("created") }.count == 6)
      #expect(try await client.int(count) == 18)
    }
  }

  @Test func rowsOfALateRunAreMovedFromTheDefaultPartition() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      try await client.addEndpoint()
      let tomorrow = try await client.value("SELECT to_char(now() AT TIME ZONE 'UTC' + interval '1 day', 'YYYYMMDD')")!
      try await client.execute("DROP TABLE outbox.event_\(tomorrow)")
      let insert =
        "INSERT INTO outbox.event (id, type, payload) SELECT outbox.uuid_floor(now() + interval '1 day'), 't', '{\"n\": 7}'"
      try await client.execute(insert)
      #expect(try await client.int("SELECT count(*) FROM outbox.event_default") == 1)
      #expect(try await maintain(client) == ["created event_\(tomorrow)"])
      #expect(try await client.int("SELECT count(*) FROM outbox.event_default") == 0)
      #expect(try await client.int("SELECT count(*) FROM outbox.event_\(tomorrow)") == 1)
      #expect(try await worker.drain().numbers == [7])
      // The new one has all that its siblings have.
      let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'event_\(tomorrow)'"
      #expect(try await client.int(indexes) == 2)
    }
  }

  @Test func retentionDropsWholeDays() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let days = try await oldDays(worker.client, [30, 9, 8, 7, 6])
      _ = try await worker.drain()
      let early = try await maintain(worker.client)
      #expect(early == [days[0], days[1], days[2]].map { "kept (not proved yet) event_\($0)" })
      #expect(try await worker.client.proveAll() == 1)
      let done = try await maintain(worker.client)
      #expect(done == [days[0], days[1], days[2]].map { "dropped event_\($0)" })
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.event") == 2)
      try await worker.client.execute(
        """
        SELECT outbox.add_partition('attempt_single', '2020-01-01'), outbox.add_partition('attempt_packed', '2020-01-01');
        INSERT INTO outbox.dead_letter (event_id, endpoint_id, url, type, tenant, payload, created_at, attempts, reason, died_at)
        SELECT gen_random_uuid(), 1, '', 't', '', '1', now(), 1, 'exhausted', now() - n * interval '50 days' FROM generate_series(1, 2) n
        """
      )
      #expect(
        try await maintain(worker.client).sorted() == ["deleted 1 old dead letters", "dropped attempt_packed_20200101"]
      )
      #expect(try await maintain(worker.client) == ["dropped attempt_single_20200101"])
    }
  }

  @Test func dayThatIsStillNeededIsKept() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      try await client.addEndpoint("event_types => '{old9, old8}'")
      let days = try await oldDays(client, [9, 8])
      let kept = days.map { "kept (still needed) event_\($0)" }
      #expect(try await maintain(client) == kept, "not cut yet")
      let cut = try #require(try await worker.cut(events: 10, direct: 1))
      _ = try await worker.drain()
      #expect(try await client.proveAll() == 1)
      #expect(try await maintain(client) == kept, "one is in a batch, one waits")
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      #expect(try await maintain(client) == ["dropped event_\(days[0])", kept[1]])
      try await worker.record(try await worker.claim([cut.pairs[0].endpoint]).map { $0.outcome() })
      try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      #expect(try await maintain(client) == ["dropped event_\(days[1])"])
    }
  }

  /// Events of transactions that were in progress at the last cut, too.
  @Test func dayWithALateCommitterIsKept() async throws {
    try await withDatabase { database in
      let (worker, late) = (try await Worker(database), database.client())
      try await late.execute("BEGIN; SELECT pg_current_xact_id()")
      let day = try await oldDays(worker.client, [9])[0]
      _ = try await worker.drain()
      #expect(try await worker.client.proveAll() == 1)
      try await late.execute(
        """
        INSERT INTO outbox.event (id, type, payload)
        VALUES (outbox.uuid_floor('\(day)'::timestamp AT TIME ZONE 'UTC' + interval '1 hour'), 't', '1')
        """
      )
      #expect(try await maintain(worker.client) == ["postponed (locked) event_\(day)"])
      try await late.execute("COMMIT")
      #expect(try await maintain(worker.client) == ["kept (still needed) event_\(day)"])
      _ = try await worker.drain()
      #expect(try await maintain(worker.client) == ["kept (not proved yet) event_\(day)"])
      #expect(try await worker.client.proveAll() == 1)
      #expect(try await maintain(worker.client) == ["dropped event_\(day)"])
    }
  }

  @Test func lockedTablesArePostponedWhileOthersPublish() async throws {
    try await withDatabase { database in
      let (worker, holder) = (try await Worker(database), database.client())
      let days = try await oldDays(worker.client, [9])
      _ = try await worker.drain()
      #expect(try await worker.client.proveAll() == 1)
      let last = try await worker.client.value(
        "SELECT max(partition) FROM outbox.partitions() WHERE parent = 'event' AND day IS NOT NULL"
      )!
      try await worker.client.execute("DROP TABLE outbox.\(last)")
      try await worker.client.execute("UPDATE outbox.setting SET value = '50 ms' WHERE name = 'lock_timeout'")
      try await holder.execute("BEGIN; LOCK TABLE outbox.event_default IN ROW EXCLUSIVE MODE")
      try await holder.publish(1)
      #expect(try await maintain(worker.client).first == "postponed (locked) \(last)")
      try await database.client().publish(1)
      try await holder.execute("COMMIT")
      // Not both at once: the lock of the one is waited for by who holds that of the other.
      #expect(try await maintain(worker.client) == ["created \(last)"])
      #expect(try await maintain(worker.client) == ["dropped event_\(days[0])"])
    }
  }

  @Test func secondMaintainerHasNothingToDo() async throws {
    try await withDatabase { database in
      let (first, second) = (database.client(), database.client())
      try await first.execute("UPDATE outbox.setting SET value = '4' WHERE name = 'partitions_ahead'; BEGIN")
      #expect(try await maintain(first).count == 1)
      #expect(try await maintain(second) == [])
      try await first.execute("COMMIT")
    }
  }

  /// What has leaked need not lie about for ever; what kind of key an endpoint has is not forgotten.
  @Test func expiredSecretsAreDeletedButForTheNewest() async throws {
    try await withDatabase { database in
      let client = database.client()
      let (first, second) = (try await client.addEndpoint(), try await client.addEndpoint("signature => 'ed25519'"))
      for overlap in ["-30 days", "-1 day", "1 day"] {
        try await client.execute("SELECT outbox.rotate_secret(\(first), '\(overlap)')")
      }
      try await client.execute(
        "UPDATE outbox.endpoint_secret SET expires_at = now() - interval '1 year' WHERE endpoint_id = \(second)"
      )
      let left = "SELECT endpoint_id || ' ' || id FROM outbox.endpoint_secret ORDER BY endpoint_id, id"
      let all = try await client.column(left)
      #expect(all.count == 5)
      // A dispatcher that is sealing it keeps it.
      let sealer = database.client()
      try await sealer.execute("BEGIN; SELECT FROM outbox.endpoint_secret WHERE endpoint_id = \(first) FOR UPDATE")
      #expect(try await maintain(client) == [])
      try await sealer.execute("COMMIT")
      #expect(try await maintain(client) == ["deleted 1 expired secrets"])
      #expect(try await client.column(left) == all.filter { $0 != all[0] })
      try await client.execute("UPDATE outbox.setting SET value = '1 hour' WHERE name = 'secret_retention'")
      #expect(try await maintain(client) == ["deleted 1 expired secrets"])
      #expect(try await maintain(client) == [])
      #expect(try await client.value("SELECT outbox.rotate_secret(\(second))") == nil)
      #expect(try await maintain(client) == ["deleted 1 expired secrets"])
    }
  }

  @Test func positionIsTrimmedButNeverLost() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      for value in ["2", "0"] {
        for _ in 0..<4 {
          try await worker.client.publish(1)
          _ = try await worker.cut()
        }
        try await worker.client.execute("UPDATE outbox.setting SET value = '\(value)' WHERE name = 'position_rows'")
        _ = try await maintain(worker.client)
        #expect(try await worker.client.int("SELECT count(*) FROM outbox.position") == max(1, Int(value)!))
      }
      try await worker.client.publish(1)
      #expect(try await worker.cut()?.events == 1)
      for (name, value) in [("position_rows", "-5"), ("event_retention", "7 dayz"), ("partitions_ahead", "many")] {
        _ = try await worker.client.refusal("UPDATE outbox.setting SET value = '\(value)' WHERE name = '\(name)'")
      }
    }
  }

  /// "For ever" is what somebody means by it; dates have an end, and past that maintenance did nothing at all any more.
  @Test func retentionForEverKeepsMaintenanceGoing() async throws {
    try await withDatabase { database in
      let client = database.client()
      for (name, value) in [
        ("event_retention", "10000 years"), ("event_retention", "infinity"), ("partitions_ahead", "1000000"),
      ] {
        _ = try await client.refusal("UPDATE outbox.setting SET value = '\(value)' WHERE name = '\(name)'")
      }
      try await client.execute(
        "UPDATE outbox.setting SET value = '1000 years' WHERE name LIKE '%_retention';"
          + "UPDATE outbox.setting SET value = '5' WHERE name = 'partitions_ahead'"
      )
      #expect(try await client.store { try $0.maintainAll() }.contains { $0.hasPrefix("created event_") })
      #expect(try await client.int("SELECT count(*) FROM outbox.reconcile() WHERE finding = 'conservation'") == 1)
    }
  }

  /// A view on an old day: that day cannot be dropped, and all else goes on.
  @Test func whatCannotBeDroppedIsReportedAndStopsNothing() async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.execute(
        "SELECT outbox.add_partition('event', '2020-01-01'), outbox.add_partition('event', '2020-01-02')"
      )
      try await client.execute("CREATE VIEW keep AS SELECT * FROM outbox.event_20200101")
      let actions = try await maintain(client)
      #expect(actions.contains { $0.hasPrefix("failed") && $0.hasSuffix("event_20200101") })
      #expect(actions.contains("dropped event_20200102"))
    }
  }

  /// An event put back into the log by a redrive has no day of its own any more.
  @Test func oldRowsOfTheDefaultPartitionsAreDeletedUnlessNeeded() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      let endpoint = try await client.addEndpoint()
      try await client.execute(
        """
        INSERT INTO outbox.dead_letter (event_id, endpoint_id, url, type, tenant, payload, created_at, attempts, reason)
        VALUES (outbox.uuid_floor(now() - interval '60 days'), \(endpoint), '', 't', '', '{"n": 5}', now(), 1, 'exhausted');
        INSERT INTO outbox.attempt (event_id, endpoint_id, dispatcher_id, at, outcome, attempt)
        VALUES (gen_random_uuid(), 1, 1, now() - interval '60 days', 'failed', 1);
        SELECT outbox.redrive(id) FROM outbox.dead_letter;
        """
      )
      _ = try await maintain(client)
      #expect(try await client.int("SELECT count(*) FROM outbox.event_default") == 1)
      #expect(try await client.int("SELECT count(*) FROM outbox.attempt_single_default") == 0)
      #expect(try await worker.drain().flatMap(\.pairs).isEmpty, "it was cut long ago")
      let claimed = try await worker.claim([endpoint])
      #expect(claimed.map(\.event.number) == [5])
      try await worker.record(claimed.map { $0.outcome() })
      _ = try await maintain(client)
      #expect(try await client.int("SELECT count(*) FROM outbox.event_default") == 0)
    }
  }

  /// A day of history goes when all that it can say has been noted; then what it said is in the ledger, and no loss.
  @Test func historyStaysUntilWhatItSaysIsProved() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      let endpoint = try await client.addEndpoint()
      try await client.store { try $0.stampSubscriptions() }
      try await client.publish(3)
      let cut = try #require(try await worker.cut(direct: 1))
      #expect(try await client.proveAll() == 1)
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      // Eight days later: two wait, one was delivered and nobody has looked since.
      let day = try await client.value("SELECT to_char((now() AT TIME ZONE 'UTC')::date - 8, 'YYYYMMDD')")!
      try await client.execute(
        """
        SELECT outbox.add_partition('attempt_single', '\(day)');
        UPDATE outbox.attempt SET at = at - interval '8 days';
        UPDATE outbox.proof SET began_at = began_at - interval '9 days', proved_at = proved_at - interval '9 days' WHERE due_at IS NOT NULL
        """
      )
      #expect(try await maintain(client) == ["kept (not proved yet) attempt_single_\(day)"])
      try await client.execute("UPDATE outbox.proof SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")
      #expect(try await client.proveAll() == 0, "no new row")
      #expect(try await maintain(client) == ["dropped attempt_single_\(day)"])
      #expect(try await client.books() == [["3", "3", "1", "2", "0", "0", "0", "1", "0"]])
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome() })
      try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      #expect(try await client.books() == [["3", "3", "3", "0", "0", "0", "0", "1", "0"]])
    }
  }

  /// Dead letters likewise; and the day of an event that is missing, so that it can be sent after all.
  @Test func deadLettersAndLostEventsStayUntilTheyAreProved() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      let endpoint = try await client.addEndpoint("event_types => '{t, old9}'")
      try await client.store { try $0.stampSubscriptions() }
      let day = try await oldDays(client, [9])[0]
      try await client.execute("UPDATE outbox.event SET created_at = outbox.uuid_time(id)")
      try await client.publish(1)
      _ = try await worker.cut(direct: 0)
      #expect(try await client.proveAll() == 1)
      try await client.execute(
        "DELETE FROM outbox.delivery WHERE event_id < outbox.uuid_floor(now() - interval '8 days')"
      )
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed, reason: "exhausted") })
      try await client.execute(
        """
        UPDATE outbox.dead_letter SET died_at = died_at - interval '91 days';
        UPDATE outbox.proof SET proved_at = proved_at - interval '92 days'
        """
      )
      #expect(try await maintain(client) == ["kept (open in the proof) event_\(day)"])
      try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      #expect(try await client.books() == [["2", "2", "0", "0", "0", "1", "1", "1", "0"]])
      #expect(
        try await maintain(client) == ["deleted 1 old dead letters", "kept (open in the proof) event_\(day)"]
      )
      #expect(try await client.int("SELECT count(*) FROM outbox.repair()") == 1)
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome() })
      try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      #expect(try await client.books() == [["2", "2", "1", "0", "0", "1", "0", "1", "0"]])
      #expect(try await maintain(client) == ["dropped event_\(day)"])
    }
  }

  @Test func rowsOfTheLedgerExpireUnlessSomethingInThemIsOpen() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      try await client.addEndpoint()
      try await client.store { try $0.stampSubscriptions() }
      for direct in [10, 0, 10, 10] {
        try await client.publish(2)
        if let cut = try await worker.cut(direct: direct), let batch = cut.batch {
          try await worker.record(cut.outcomes(), finished: [batch])
        }
        #expect(try await client.proveAll() == 1)
      }
      try await client.execute(
        "UPDATE outbox.proof SET newest = newest - interval '91 days' WHERE id < (SELECT max(id) - 1 FROM outbox.proof)"
      )
      _ = try await maintain(client)
      #expect(
        try await client.column("SELECT waiting FROM outbox.proof ORDER BY id") == ["0", "2", "0", "0"],
        "the first has no events"
      )
      try await client.execute("UPDATE outbox.setting SET value = '0 s' WHERE name = 'proof_retention'")
      _ = try await maintain(client)
      #expect(
        try await client.column("SELECT waiting FROM outbox.proof ORDER BY id") == ["2", "0"],
        "the newest says how far it is"
      )
    }
  }

  private func maintain(_ client: Client) async throws -> [String] {
    try await client.store { try $0.maintain() }
  }

  /// Partitions of days gone by, each with one event of its own type, old9 say. Returns their days.
  private func oldDays(_ client: Client, _ ages: [Int]) async throws -> [String] {
    var days: [String] = []
    for age in ages {
      let day = "((now() AT TIME ZONE 'UTC')::date - \(age))"
      try await client.execute("SELECT outbox.add_partition('event', \(day))")
      try await client.execute(
        """
        INSERT INTO outbox.event (id, type, payload)
        VALUES (outbox.uuid_floor(\(day)::timestamp AT TIME ZONE 'UTC'), 'old\(age)', '{"n": \(age)}')
        """
      )
      days.append(try await client.value("SELECT to_char(\(day), 'YYYYMMDD')")!)
    }
    return days
  }
}
