extension PostgresError {
  /// What a caller in a loop should do.
  package enum Remedy: Sendable, Equatable {
    /// The same statement on the same connection may work in a moment.
    case retry
    /// A new connection may work: this one is gone, or leads to a server that is stopping, starting, full, or read-only
    /// after a failover.
    case reconnect
    /// Trying again will give the same answer.
    case giveUp
  }

  /// The one place where retryability is decided.
  package var remedy: Remedy {
    guard kind != .connection else { return .reconnect }
    guard kind == .server else { return .giveUp }
    switch sqlState {
    case "57P01", "57P02", "57P03", "57P05", "25006", "25P03", "53300", "08P01": return .reconnect
    // serialization failure, deadlock, lock timeout, statement timeout or cancel
    case "40001", "40P01", "55P03", "57014": return .retry
    // a prepared statement was lost, or met another of its name (a pooler), or outlived a change of its tables
    case "26000", "42P05": return .retry
    case "0A000": return isStalePlan ? .retry : .giveUp
    default: break
    }
    switch sqlState.prefix(2) {
    case "08": return .reconnect
    case "53", "58": return .retry  // out of disk or memory, I/O: operators mend those while we wait
    case "XX": return .retry
    default: return .giveUp
    }
  }

  /// "cached plan must not change result type": SQLSTATE 0A000 is also every feature that PostgreSQL lacks, and the
  /// message is translated, so the function tells them apart.
  var isStalePlan: Bool { sqlState == "0A000" && routine == "RevalidateCachedQuery" }

  /// Nothing is wrong with the statement, only with what we took to be prepared under its name.
  var isLostStatement: Bool { isStalePlan || sqlState == "26000" || sqlState == "42P05" }
}
