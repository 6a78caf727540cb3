import CLibCurl
import Synchronization

/// How other threads reach the engine thread.
final class EngineInbox: Sendable {
  /// `@unchecked Sendable`: libcurl documents `curl_multi_wakeup` as the one call that may be made from any thread
  /// while another uses the handle, and it is the only one made through this copy of the pointer. It is made under the
  /// inbox's lock, under which the engine thread takes the pointer away before it frees the handle.
  private struct Bell: @unchecked Sendable {
    let multi: UnsafeMutableRawPointer
  }

  private struct State {
    var requests: [HTTPRequest] = []
    var bell: Bell?
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
  func open(multi: UnsafeMutableRawPointer) {
    let bell = Bell(multi: multi)
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
    curl_multi_wakeup(bell.multi)
  }
}
