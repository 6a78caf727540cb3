import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Testing

/// What the simulation proves it proves of the model; here the model is held against the SQL. `MARTLET_SEQUENCES` says how
/// many random sequences of calls are made on both (250), `MARTLET_SEED` where they begin.
@Suite struct AgreementTests {
  @Test func modelAndSQLAgreeOnRandomCalls() async throws {
    let environment = ProcessInfo.processInfo.environment
    let first = environment["MARTLET_SEED"].flatMap(UInt64.init) ?? 1
    let count = environment["MARTLET_SEQUENCES"].flatMap(UInt64.init) ?? 250
    let settings = ["autovacuum": "off", "max_connections": "20"]
    try await withEmbeddedPostgres(.init(settings: settings)) { (server) async throws in
      let url = try await server.createDatabase("agreement")
      let configuration = ConnectionConfiguration(connectionString: url)
      let report = await onAThread { () -> String? in
        var calls = 0
        do {
          _ = try Migrator(Connection(configuration)).migrate()
        } catch { return "\(error)" }
        for seed in first..<first + count {
          do {
            let pairing = try Pairing(configuration, seed: seed)
            defer { calls += pairing.calls }
            try pairing.run(40)
          } catch {
            return "seed \(seed): \(error)"
          }
        }
        print("\(count) sequences, \(calls) calls: the model and PostgreSQL agree")
        return nil
      }
      #expect(report == nil, "\(report ?? "")")
    }
  }

  /// Blocking calls do not belong on the shared threads.
  private func onAThread<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
    await withCheckedContinuation { continuation in
      Thread { continuation.resume(returning: body()) }.start()
    }
  }
}
