import Foundation
import OutboxStore
import Postgres
import Testing

/// What the proof costs, counted in buffers.
@Suite struct ProofCostTests {
  /// Twenty times the events in as many rows of the ledger cost the same; a row more costs a fraction of a page.
  @Test func conservationReadsRowsOfTheLedgerAndNotEvents() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      try await deliver(worker, events: 1_000)
      #expect(try await worker.client.proveAll(100) == 10)
      _ = try await worker.client.rows("SELECT * FROM outbox.conservation('-infinity')")  // fills the session's caches
      let small = try await buffers(worker.client, "SELECT * FROM outbox.conservation('-infinity')")
      try await deliver(worker, events: 19_000)
      let unproved = try await buffers(worker.client, "SELECT * FROM outbox.conservation('-infinity')")
      #expect(try await worker.client.proveAll(1_900) == 10)
      _ = try await worker.client.rows("SELECT * FROM outbox.conservation('-infinity')")  // fills the session's caches
      let large = try await buffers(worker.client, "SELECT * FROM outbox.conservation('-infinity')")
      print(
        "buffers of conservation: 10 rows, 1,000 events: \(small); 20 rows, 20,000 events: \(large); not proved: \(unproved)"
      )
      #expect(try await worker.client.books() == [["20000", "60000", "60000", "0", "0", "0", "0", "20", "0"]])
      #expect(large <= small + 20)
      #expect(unproved > 20_000)
    }
  }

  /// Each event is looked at once, and costs what its pairs cost; one that is settled is never looked at again.
  @Test func provingCostsAFewProbesForEachPairOnce() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      try await deliver(worker, events: 10_000)
      try await worker.client.execute("VACUUM ANALYZE outbox.event, outbox.attempt_single, outbox.attempt_packed")
      let proving = try await buffers(worker.client, "SELECT * FROM outbox.prove(10000, '0 s')")
      print("buffers of proving 1,000 events with 3 endpoints: \(proving / 10)")
      #expect(try await worker.client.books() == [["10000", "30000", "30000", "0", "0", "0", "0", "1", "0"]])
      #expect(proving < 10_000 * 40)
      let again = try await buffers(worker.client, "SELECT * FROM outbox.prove_again()")
      let idle = try await buffers(worker.client, "SELECT * FROM outbox.prove(10000, '0 s')")
      print("buffers once it is settled: again \(again), idle \(idle)")
      #expect(again + idle < 1_000)
    }
  }

  /// What still waits is looked at again, and only that: a few of many, and the row of the ledger is all that is written.
  @Test func lookingAgainCostsWhatIsOpen() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      try await deliver(worker, events: 5_000)
      try await worker.client.publish(20)
      _ = try await worker.cut(direct: 0)
      #expect(try await worker.client.proveAll() == 1)
      _ = try await buffers(worker.client, "SELECT * FROM outbox.prove_again()")
      let again = try await buffers(worker.client, "SELECT * FROM outbox.prove_again()")
      print("buffers of looking again at 60 of 15,060 pairs: \(again)")
      #expect(again < 60 * 40)
      let size = "SELECT pg_total_relation_size('outbox.proof')"
      let before = try await worker.client.int(size)
      for _ in 0..<20 { _ = try await worker.client.rows("SELECT id FROM outbox.prove_again()") }
      #expect(try await worker.client.int(size) - before <= 12 * 8192)
    }
  }

  /// Days of history that hold nothing of the events are not asked.
  @Test func oldHistoryIsNotSearchedForYoungEvents() async throws {
    try await withDatabase { database in
      let worker = try await prepared(database)
      try await deliver(worker, events: 2_000)
      let few = try await buffers(worker.client, "SELECT * FROM outbox.prove(2000)")
      try await worker.client.execute(
        """
        DO $$ BEGIN FOR day IN 1..7 LOOP
          PERFORM outbox.add_partition('attempt_single', (now() AT TIME ZONE 'UTC')::date - day);
          INSERT INTO outbox.attempt (event_id, endpoint_id, dispatcher_id, at, outcome, attempt)
          SELECT gen_random_uuid(), 1, 1, now() - day * interval '1 day', 'delivered', 1 FROM generate_series(1, 5000);
        END LOOP; END $$
        """
      )
      try await deliver(worker, events: 2_000)
      _ = try await worker.client.rows("SELECT * FROM outbox.conservation('-infinity')")  // fills the session's caches
      let many = try await buffers(worker.client, "SELECT * FROM outbox.prove(2000)")
      print("buffers of proving 2,000 events: history of a day \(few), of eight \(many)")
      #expect(many < few + few / 2)
    }
  }

  private func prepared(_ database: Database) async throws -> Worker {
    let worker = try await Worker(database)
    for _ in 0..<3 { try await worker.client.addEndpoint() }
    try await worker.client.store { try $0.stampSubscriptions() }
    return worker
  }

  private func deliver(_ worker: Worker, events: Int) async throws {
    try await worker.client.publish(events)
    for cut in try await worker.drain(events: 2_000) {
      if let batch = cut.batch { try await worker.record(cut.outcomes(), finished: [batch]) }
    }
    #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == 0)
  }

  private func buffers(_ client: Client, _ sql: String) async throws -> Int {
    let plan = try await client.column("EXPLAIN (ANALYZE, BUFFERS) \(sql)")
    return try #require(PlanLog.buffers(in: plan.joined(separator: "\n")))
  }
}
