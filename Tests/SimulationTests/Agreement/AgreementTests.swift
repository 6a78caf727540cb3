import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Testing

extension SimulationTests {
  /// What the simulation proves it proves of the model; here the model is held against the SQL. `MARTLET_SEQUENCES` says how
  /// many random sequences of calls are made on both (250), `MARTLET_SEED` where they begin.
  @Suite struct AgreementTests {
    @Test func modelAndSQLAgreeOnRandomCalls() async throws {
      let environment = ProcessInfo.processInfo.environment
      let first = environment["MARTLET_SEED"].flatMap(UInt64.init) ?? 1
      let count = environment["MARTLET_SEQUENCES"].flatMap(UInt64.init) ?? 250
      let report = try await onAServer { configuration -> String? in
        var calls = 0
        for seed in first..<first + count {
          do {
            calls += try Pairing(configuration, seed: seed).run(40)
          } catch {
            return "seed \(seed): \(error)"
          }
        }
        print("\(count) sequences, \(calls) calls: the model and PostgreSQL agree")
        return nil
      }
      #expect(report == nil, "\(report ?? "")")
    }

    /// Of a model that is broken the comparison must tell, or it compares nothing. What shows only when two calls overlap, or
    /// in a crash, is left to the simulation.
    @Test func brokenModelsDisagree() async throws {
      let needsOverlap: Set<Mutation> = [
        .recoverDespiteRunningStep, .cutWithoutLock, .parkWithoutKeyLock, .asynchronousOrderedClaim, .skipWitness,
      ]
      let unnoticed = try await onAServer { configuration -> [String] in
        Mutation.allCases.filter { !needsOverlap.contains($0) }.filter { mutation in
          for seed in 1...200 as ClosedRange<UInt64> {
            do {
              let pairing = try Pairing(configuration, seed: seed)
              pairing.model.mutation = mutation
              _ = try pairing.run(40)
            } catch {
              print("\(mutation.rawValue): the model and PostgreSQL disagree in sequence \(seed)")
              return false
            }
          }
          return true
        }
        .map(\.rawValue)
      }
      #expect(unnoticed == [])
    }

    private func onAServer<Value: Sendable>(_ body: @escaping @Sendable (ConnectionConfiguration) -> Value) async throws
      -> Value
    {
      let settings = ["autovacuum": "off", "max_connections": "20"]
      return try await withEmbeddedPostgres(.init(settings: settings)) { (server) async throws in
        let configuration = ConnectionConfiguration(connectionString: try await server.createDatabase("agreement"))
        return try await onAThread {
          Result {
            _ = try Migrator(Connection(configuration)).migrate()
            return body(configuration)
          }
        }
        .get()
      }
    }

    /// Blocking calls do not belong on the shared threads.
    private func onAThread<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
      await withCheckedContinuation { continuation in
        Thread { continuation.resume(returning: body()) }.start()
      }
    }
  }
}
