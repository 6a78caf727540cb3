/// What is done to a running system.
package enum Fault: String, CaseIterable, Sendable, Codable {
  case kill
  case zombie
  case terminate
  case crash
  case databaseNetwork = "database-network"
  case receiverNetwork = "receiver-network"
  case failover
  case diskFull = "disk-full"
  case connections
  case pooler
  case clock
  case maintenance
  case versions
  case mixed

  package var story: String {
    switch self {
    case .kill: "SIGKILL of a dispatcher, and another is started"
    case .zombie: "SIGSTOP of a dispatcher until others took over, then SIGCONT"
    case .terminate: "pg_terminate_backend of all sessions of a dispatcher"
    case .crash: "PostgreSQL: immediate shutdown, crash recovery"
    case .databaseNetwork: "dispatcher to PostgreSQL: connections cut, reset, slow, refused, silent beyond the lease"
    case .receiverNetwork: "dispatcher to receiver: connections cut, reset, slow, refused, silent beyond the timeout"
    case .failover: "the primary dies, its synchronous standby is promoted"
    case .diskFull: "PostgreSQL's disk is full, then has room again"
    case .connections: "no connection to be had when dispatchers need new ones"
    case .pooler: "pgbouncer in transaction mode in between, killed, and its server connections terminated"
    case .clock: "hosts' clocks jump by up to a day, each dispatcher's by its own"
    case .maintenance: "two `martlet migrate`, and outbox.maintain() making partitions, while running"
    case .versions: "one dispatcher after the other stopped and replaced by one of another version"
    case .mixed: "two or three at a time of kill, zombie, terminate, crash and both networks, overlapping"
    }
  }

  /// Faults that go together in one scene.
  static let mixable: [Fault] = [.kill, .zombie, .terminate, .crash, .databaseNetwork, .receiverNetwork]
}
