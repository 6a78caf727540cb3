import FlyingSocks
import Foundation

extension ReceiverError {
  /// What an error of the HTTP server means to the person who started it.
  init(_ error: any Error, host: String, port: UInt16) {
    switch error {
    case let error as ReceiverError:
      self = error
    // inet_pton sets no errno when it is given something else than an address: what is reported is an earlier call's.
    case SocketError.failed("inet_pton AF_INET", _, _), SocketError.failed("inet_pton AF_INET6", _, _):
      self = .addressUnavailable(host: host)
    case SocketError.failed(_, EADDRINUSE, _):
      self = .portInUse(port: port)
    case SocketError.failed(_, EACCES, _):
      self = .portNotPermitted(port: port)
    case SocketError.failed("Bind", _, _):
      self = .addressUnavailable(host: host)
    default:
      self = .serverFailed(message: error.localizedDescription)
    }
  }
}
