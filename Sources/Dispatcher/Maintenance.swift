import Logging
import OutboxStore
import Postgres
import SecretSealing

/// Partitions ahead, retention behind, the proof of conservation, secrets sealed, now and then. On a session of its own: it may take minutes, and that
/// must cost nobody the lease. What fails is logged and tried again next time; delivery does not depend on it.
struct Maintenance {
  let database: ConnectionConfiguration
  let every: Duration
  let keyring: Keyring
  let logger: Logger

  /// How many steps of the proof are done in a row, each of up to 10,000 events: nothing else may wait long for it.
  static let proofSteps = 100

  /// Until the task is cancelled.
  func run() async {
    var database = database
    database.applicationName = "martlet-maintain"
    database.statementTimeout = .seconds(600)
    database.setUp.append("SET default_transaction_isolation = 'read committed'")
    let session = Session(database, name: "martlet-maintain")
    var told: Set<String> = []
    repeat {
      // First, because it is quick: a secret stays in plain for as short a time as can be.
      await attempt("sealing secrets failed; it is tried again") { try await seal(session, &told) }
      await attempt("the proof of conservation failed; it is tried again") { try await prove(session) }
      await attempt("maintenance failed; it is tried again") { try await maintain(session) }
    } while (try? await Task.sleep(for: every)) != nil
  }

  private func attempt(_ failure: Logger.Message, _ body: () async throws -> Void) async {
    do {
      try await body()
    } catch  where !Task.isCancelled {
      logger.error(failure, metadata: ["error": "\(error)"])
    } catch {}
  }

  private func prove(_ session: Session) async throws {
    try await session.withConnection { connection in
      let store = OutboxStore(connection)
      try store.stampSubscriptions()
      try store.prove(steps: Self.proofSteps)
    }
  }

  private func maintain(_ session: Session) async throws {
    let actions = try await session.withConnection { try OutboxStore($0).maintainAll() }
    for action in actions {
      logger.log(
        level: action.hasPrefix("failed") ? .error : .info,
        "maintenance",
        metadata: ["action": "\(action)"]
      )
    }
  }

  /// `told`: what was logged already, and is still so.
  private func seal(_ session: Session, _ told: inout Set<String>) async throws {
    let sweep = SealingSweep(keyring)
    let report = try await session.withConnection { try sweep.run(OutboxStore($0)) }
    if report.sealed + report.resealed + report.publicKeys > 0 {
      logger.notice(
        "secrets were sealed",
        metadata: [
          "sealed": "\(report.sealed)", "sealed_anew": "\(report.resealed)", "public_keys": "\(report.publicKeys)",
          "key": "\(keyring.sealingKeyID ?? "none")",
        ]
      )
    }
    for problem in report.problems where !told.contains(problem) {
      logger.error(
        "nothing can be sent to an endpoint whose secrets cannot be read",
        metadata: ["problem": "\(problem)"]
      )
    }
    told = Set(report.problems)
  }
}
