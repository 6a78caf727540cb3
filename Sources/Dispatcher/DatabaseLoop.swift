import Logging
import OutboxStore
import Postgres

/// What the three threads that talk to the database have in common: a session of their own, and calm when it fails.
///
/// PostgreSQL going away is normal. It is logged once when it goes and once when it is back; in between a connection is
/// tried at growing intervals.
final class DatabaseLoop {
  private let connect: () throws(PostgresError) -> any DispatchStore
  private let logger: Logger
  private let bell: Bell
  private var failures = 0

  init(connect: @escaping () throws(PostgresError) -> any DispatchStore, bell: Bell, logger: Logger) {
    self.connect = connect
    self.bell = bell
    self.logger = logger
  }

  enum Step<Value> {
    case done(Value)
    /// The lease ran out and can still be renewed, or is gone.
    case unleased(lost: Bool)
    /// What we hold must be compared first.
    case doubtful
    /// It failed, and we have waited a little. `unknown`: it may have been committed all the same.
    case failed(unknown: Bool)
    /// It was refused, and trying the same again will give the same answer until somebody has mended something. What else
    /// there is to do goes on: one statement must not stop them all.
    case refused(PostgresError)
  }

  /// Why the last step that failed did.
  private(set) var lastFailure: PostgresError?

  /// Makes one step.
  func step<Value>(_ body: (any DispatchStore) throws(PostgresError) -> Value) -> Step<Value> {
    var connected = false
    do {
      let store = try connect()
      connected = true
      let value = try body(store)
      if failures > 0 {
        logger.notice("the database answers again", metadata: ["failures": "\(failures)"])
        failures = 0
      }
      return .done(value)
    } catch {
      switch error.sqlState {
      case OutboxState.leaseExpired: return .unleased(lost: false)
      case OutboxState.leaseLost: return .unleased(lost: true)
      case OutboxState.mustResync: return .doubtful
      default: break
      }
      guard !connected || error.remedy != .giveUp else { return .refused(error) }
      lastFailure = error
      failures += 1
      if failures == 1 {
        logger.warning("the database does not answer as it should; trying again", metadata: ["error": "\(error)"])
      }
      bell.wait(upTo: min(.milliseconds(50) * (1 << min(failures - 1, 6)), .seconds(2)))
      return .failed(unknown: connected && error.remedy == .reconnect)
    }
  }

  /// Says what was refused, and waits before it may be tried again.
  func complain(_ error: PostgresError, about what: StaticString) {
    logger.critical("\(what)", metadata: ["error": "\(error)"])
    bell.wait(upTo: .seconds(5))
  }
}
