import Foundation
import OutboxStore
import Testing

@Suite struct DeadRowTests {
  @Test func happyPathNeitherUpdatesNorDeletesPerEvent() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(20_000)
      let cuts = try await worker.drain()
      #expect(cuts.numbers.count == 20_000)
      for cut in cuts {
        guard let batch = cut.batch else { continue }
        try await worker.record(cut.outcomes(), finished: [batch])
      }
      await worker.client.session.disconnect()  // counters of a session that ended are all there
      let auditor = database.client()
      let counters = """
        SELECT coalesce(sum(n_tup_ins), 0), coalesce(sum(n_tup_upd), 0), coalesce(sum(n_tup_del), 0), coalesce(sum(n_dead_tup), 0)
        FROM pg_stat_user_tables WHERE schemaname = 'outbox' AND relname ~
        """
      let packs = try await auditor.int("SELECT count(*) FROM outbox.attempt_packed")
      #expect(packs < 20_000 / 4)
      try await eventually("the counters of the session that ended") {
        try await auditor.value(counters + "'^attempt'") == String(packs)
      }
      for table in ["^event", "^attempt", "^delivery", "^endpoint_health", "^position"] {
        #expect(try await auditor.rows(counters + "'\(table)'")[0][1...].allSatisfy { $0 == "0" }, "\(table)")
      }
      let batch = try await auditor.rows(counters + "'^batch'")[0]
      #expect(batch == [cuts.count, 0, cuts.count, cuts.count].map(String.init))
      #expect(try await auditor.int("SELECT count(*) FROM outbox.delivery") == 0)
    }
  }
}
