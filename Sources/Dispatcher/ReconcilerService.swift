import Logging
import OutboxStore
import Postgres
import ServiceLifecycle

/// Runs the reconciler now and then and logs what it finds. That it could not look is logged as loudly as a finding.
package struct ReconcilerService: Service {
  private let database: ConnectionConfiguration
  private let every: Duration
  private let logger: Logger

  package init(database: ConnectionConfiguration, every: Duration, logger: Logger) {
    self.database = database
    self.every = every
    self.logger = logger
  }

  package func run() async throws {
    let session = Session(database, name: "martlet-reconcile")
    await cancelWhenGracefulShutdown {
      while (try? await Task.sleep(for: every)) != nil {
        do {
          let findings = try await session.withConnection { connection in
            let store = OutboxStore(connection)
            try store.prove(steps: Maintenance.proofSteps)
            return try store.reconcile()
          }
          for finding in findings { finding.log(logger) }
        } catch  where !Task.isCancelled {
          logger.error("the reconciler could not look", metadata: ["error": "\(error)"])
        } catch {}
      }
    }
  }
}

extension Finding {
  fileprivate func log(_ logger: Logger) {
    let level: Logger.Level =
      switch severity {
      case .critical: .critical
      case .unchecked: .error
      case .warning: .warning
      case .info: .info
      case .ok: .debug
      }
    logger.log(
      level: level,
      "reconciler: \(finding)",
      metadata: ["subject": "\(subject)", "detail": "\(detail)", "remedy": "\(remedy ?? "-")"]
    )
  }
}
