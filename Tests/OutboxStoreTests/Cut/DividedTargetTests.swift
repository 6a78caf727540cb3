import Testing

/// A backlog that takes several cuts is taken in the order of transaction ids. Keys must come in the order of commits all the
/// same, also where a transaction had its id long before it took the key's lock.
@Suite struct DividedTargetTests {
  /// Each number is an event's; `k` and `z` are keys, the rest lies between.
  private func backlog(_ database: Database, _ worker: Worker, between: Int) async throws {
    let early = database.client()
    try await early.execute("BEGIN; SELECT pg_current_xact_id()")
    for _ in 0..<between { try await worker.client.publish(10) }
    try await publish(1, "k", worker.client)
    try await early.execute(event(2, "k") + ";" + event(3, "z") + "; COMMIT")
    try await publish(4, "k", worker.client)
  }

  private func event(_ n: Int, _ key: String) -> String {
    "INSERT INTO outbox.event (type, key, payload) VALUES ('t', '\(key)', '{\"n\": \(n)}')"
  }
  private func publish(_ n: Int, _ key: String, _ client: Client) async throws {
    try await client.execute(event(n, key))
  }

  /// What waits of a key, in its order; `!` where it is ready.
  private func parked(_ key: String) -> String {
    """
    SELECT string_agg(e.payload ->> 'n' || CASE WHEN d.ready THEN '!' ELSE '' END, ' ' ORDER BY d.seq)
    FROM outbox.delivery d JOIN outbox.event e ON e.id = d.event_id WHERE e.key = '\(key)'
    """
  }

  @Test(arguments: [1, 5, 40]) func keysKeepTheOrderOfCommitsAcrossCuts(_ between: Int) async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("ordered => true")
      try await backlog(database, worker, between: between)
      var cuts = 0
      while try await worker.cut(events: 10, direct: 0) != nil {
        cuts += 1
        // Nothing is ready that has a predecessor in what is still to be cut.
        let ready = try await worker.client.column(
          "SELECT e.payload ->> 'n' FROM outbox.delivery d JOIN outbox.event e ON e.id = d.event_id WHERE d.ready AND e.key = 'k'"
        )
        #expect(ready == [] || ready == ["1"])
      }
      #expect(cuts > between)
      #expect(try await worker.client.value(parked("k")) == "1! 2 4")
      #expect(try await worker.client.value(parked("z")) == "3!")
      #expect(try await worker.client.rows("SELECT missing FROM outbox.conservation('-infinity')") == [["0"]])
    }
  }

  @Test func whatIsSetAsideIsExplainedAndOutlivesItsDispatcher() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("ordered => true")
      try await backlog(database, worker, between: 3)
      _ = try await worker.cut(events: 10, direct: 0)
      let detail = try await worker.client.value(
        "SELECT detail FROM outbox.event e, outbox.explain(e.id) x WHERE e.payload ->> 'n' = '2' AND x.status = 'blocked'"
      )
      #expect(detail?.contains("the rest of the backlog") == true, "\(detail ?? "-")")
      try await worker.expire()
      let next = try await Worker(database)
      try await next.client.execute("SELECT outbox.recover()")
      while try await next.cut(events: 10, direct: 0) != nil {}
      #expect(try await next.client.value(parked("k")) == "1! 2 4")
    }
  }

  /// Only what may have a predecessor waits for the end: all else goes on at once.
  @Test func ordinaryBacklogsAreNotHeldBack() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("ordered => true")
      for n in 0..<40 { try await publish(n, "k\(n % 8)", worker.client) }
      _ = try await worker.cut(events: 10, direct: 0)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery WHERE ready") == 8)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery WHERE NOT ready AND key IS NULL") == 0)
    }
  }

  @Test func aSwitchOfOrderedDoesNotDisturbWhatIsSetAside() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("ordered => true")
      try await backlog(database, worker, between: 3)
      _ = try await worker.cut(events: 10, direct: 0)
      try await worker.client.execute("UPDATE outbox.endpoint SET ordered = false")
      try await worker.client.execute("UPDATE outbox.endpoint SET ordered = true")
      while try await worker.cut(events: 10, direct: 0) != nil {}
      #expect(try await worker.client.value(parked("k")) == "1! 2 4")
    }
  }
}
