import Foundation
import OutboxStore
import Postgres
import Testing

@testable import EmbeddedPostgres

/// A restored copy sends nothing by itself, and after `reanchor` nothing that the original has sent.
@Suite struct ReanchorTests {
  @Test func copyInTheSameClusterIsRefused() async throws {
    try await withDatabase { database in
      let client = database.client()
      #expect(try await client.store { try $0.anchorProblem() } == nil)
      try await client.execute("UPDATE outbox.anchor SET database_oid = 1")
      #expect(try await client.store { try $0.anchorProblem() }?.contains("oid 1") == true)
      for wrong in ["'then'", "NULL"] {
        #expect(try await client.refusal("SELECT outbox.reanchor(\(wrong))").sqlState == "22023")
      }
      #expect(try await client.int("SELECT outbox.reanchor('now')") == 0)
      #expect(try await client.store { try $0.anchorProblem() } == nil)
    }
  }

  /// The original's state when it is dumped: events 1 to 3 delivered; 4 in a batch, 5 claimed, 6 waiting, 7 of a late
  /// committer that the cut has passed, 8 behind the cut; the target is half cut.
  @Test(arguments: ["now", "last_cut"]) func restoredDumpGoesOnWhereItIsTold(from: String) async throws {
    try await withDatabase { original in
      let endpoint = try await makeState(original)
      try await withEmbeddedPostgres(.init(settings: TestServer.settings)) { (server) async throws in
        let copy = try await restore(original, to: server)
        let client = copy.client()
        #expect(try await client.store { try $0.anchorProblem() }?.contains("is a copy") == true)
        let findings = try await client.column("SELECT finding FROM outbox.reconcile() WHERE severity = 'critical'")
        #expect(findings.contains("restored copy"))

        // Another transaction ends with a higher id while ours is open: ours counts as seen in a snapshot of its own.
        let other = copy.client()
        try await client.execute("BEGIN; SELECT pg_current_xact_id()")
        for _ in 0..<3 { try await other.execute("SELECT pg_current_xact_id()") }
        try await client.execute("SELECT outbox.reanchor('\(from)')")
        try await client.execute("COMMIT")
        #expect(try await client.store { try $0.anchorProblem() } == nil)

        try await client.publish(1, from: 100)
        let worker = try await Worker(copy)
        var received = try await worker.drain(events: 2).numbers
        received += try await worker.claim([endpoint]).map(\.event.number)
        #expect(received.sorted() == (from == "now" ? [100] : [4, 5, 6, 7, 8, 9, 100]))
        let discarded = "SELECT count(*) FROM outbox.dead_letter WHERE reason = 'discarded'"
        #expect(try await client.int(discarded) == (from == "now" ? 3 : 0))
        #expect(try await client.column("SELECT finding FROM outbox.reconcile() WHERE severity = 'critical'") == [])
      }
    }
  }

  private func makeState(_ database: Database) async throws -> Int64 {
    let (worker, late) = (try await Worker(database), database.client())
    let client = worker.client
    let endpoint = try await client.addEndpoint()
    try await client.publish(3, from: 1)
    for cut in try await worker.drain() { try await worker.record(cut.outcomes(), finished: [cut.batch!]) }
    try await client.publish(2, from: 5)
    _ = try await worker.cut(direct: 0)
    #expect(try await worker.claim([endpoint], slots: 1).map(\.event.number) == [5])
    try await late.execute("BEGIN")
    try await late.publish(1, from: 7)
    try await client.publish(1, from: 4)
    try await client.publish(2, from: 8)
    #expect(try await worker.cut(events: 1)?.direct.map(\.event.number) == [4])
    try await late.execute("COMMIT")
    return endpoint
  }

  private func restore(_ original: Database, to server: EmbeddedPostgres) async throws -> Database {
    let dump = server.directory.appendingPathComponent("dump.sql").path
    let binaries = original.server.binaries
    try await original.server.tools.run([binaries.client("pg_dump"), "-f", dump, original.url])
    let copy = Database(name: "copy", server: server, url: try await server.createDatabase("copy"))
    for role in ["publisher", "dispatcher", "operator", "tenant_operator"] {
      try await copy.client().execute("CREATE ROLE outbox_\(role)")
    }
    _ = try await copy.psql(["-f", dump])
    return copy
  }
}
