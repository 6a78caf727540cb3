import CLibCurl
import Glibc
import Synchronization

/// How other threads reach the engine thread.
final class EngineInbox: Sendable {
  private struct State {
    var requests: [HTTPRequest] = []
    /// An eventfd; under this lock it is open whenever it is here.
    var bell: Int32?
    /// Rung and not answered yet: ringing again would be a system call for nothing.
    var hasRung = false
    var isShutDown = false
    var hasRun = false
    var isFinished = false
  }

  private let state = Mutex(State())

  /// False when the engine has finished: the requests were not taken.
  func put(_ requests: [HTTPRequest]) -> Bool {
    state.withLock { state in
      guard !state.isFinished else { return false }
      state.requests.append(contentsOf: requests)
      Self.ring(&state)
      return true
    }
  }

  func shutDown() {
    state.withLock { state in
      state.isShutDown = true
      Self.ring(&state)
    }
  }

  /// The engine thread is starting.
  func open(bell: Int32) {
    state.withLock { state in
      precondition(!state.hasRun, "HTTPEngine.run() may be called once")
      state.hasRun = true
      state.bell = bell
    }
  }

  /// What has come in since the last call.
  func take() -> (requests: [HTTPRequest], isShutDown: Bool) {
    state.withLock { state in
      state.hasRung = false
      defer { state.requests = [] }
      return (state.requests, state.isShutDown)
    }
  }

  /// Closes the inbox for good, unless something is still in it. Then nothing more can be put, so nothing put is lost.
  func closeIfEmpty() -> Bool {
    state.withLock { state in
      guard state.requests.isEmpty else { return false }
      state.isFinished = true
      state.bell = nil
      return true
    }
  }

  private static func ring(_ state: inout State) {
    guard !state.hasRung, let bell = state.bell else { return }
    state.hasRung = true
    eventfd_write(bell, 1)
  }
}
