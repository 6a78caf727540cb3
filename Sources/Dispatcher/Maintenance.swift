import Logging
import OutboxStore
import Postgres

/// Partitions ahead, retention behind, now and then. On a session of its own: it may take minutes, and that must cost nobody
/// the lease. What fails is logged and tried again next time; delivery does not depend on it.
struct Maintenance {
  let database: ConnectionConfiguration
  let every: Duration
  let logger: Logger

  /// Until the task is cancelled.
  func run() async {
    var database = database
    database.applicationName = "martlet-maintain"
    database.statementTimeout = .seconds(600)
    database.setUp.append("SET default_transaction_isolation = 'read committed'")
    let session = Session(database, name: "martlet-maintain")
    repeat {
      do {
        let actions = try await session.withConnection { connection in
          let store = OutboxStore(connection)
          try store.stampSubscriptions()
          return try store.maintain()
        }
        for action in actions {
          logger.log(
            level: action.hasPrefix("failed") ? .error : .info,
            "maintenance",
            metadata: ["action": "\(action)"]
          )
        }
      } catch  where !Task.isCancelled {
        logger.error("maintenance failed; it is tried again", metadata: ["error": "\(error)"])
      } catch {}
    } while (try? await Task.sleep(for: every)) != nil
  }
}
