/// Why a receiver could not do its work. The descriptions are for the person at the command line.
package enum ReceiverError: Error, Hashable, Sendable {
  case portInUse(port: UInt16)
  case portNotPermitted(port: UInt16)
  /// The host is not an IP address of this machine.
  case addressUnavailable(host: String)
  /// A receiver is for one run.
  case alreadyRun
  /// The receiver was stopped before it listened.
  case stopped
  /// The server gave up; the message is the operating system's.
  case serverFailed(message: String)
  /// An option makes no sense.
  case invalidOption(message: String)
}

extension ReceiverError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .portInUse(let port):
      "port \(port) is already in use by another process; choose another with --port"
    case .portNotPermitted(let port):
      "this user may not listen on port \(port); choose one above 1023 with --port"
    case .addressUnavailable(let host):
      "\(host) is not an IP address of this machine; use 127.0.0.1, or 0.0.0.0 for all of them"
    case .alreadyRun:
      "the receiver has been run before; make a new one"
    case .stopped:
      "the receiver was stopped before it listened"
    case .serverFailed(let message):
      "the receiver's HTTP server failed: \(message)"
    case .invalidOption(let message):
      message
    }
  }
}
