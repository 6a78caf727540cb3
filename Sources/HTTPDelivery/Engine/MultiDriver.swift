import CLibCurl
import Glibc

/// Owns libcurl's multi handle and tells it what happens on its sockets.
///
/// With `curl_multi_perform` and `curl_multi_poll` every turn costs a system call per request under way, so a few
/// thousand exchanges that hang would slow down all the others. Here, libcurl names its sockets once, they wait in an
/// epoll set, and a turn costs only what there is to do.
///
/// Used by the engine thread alone, save for writing to `bell`.
final class MultiDriver {
  let multi: UnsafeMutableRawPointer
  /// Any thread may write to this eventfd to end `turn` early.
  let bell: Int32
  /// Here, because it must be there when the last connection is closed.
  let sockets = SocketTable()
  private let epoll: Int32
  private let events: UnsafeMutableBufferPointer<epoll_event>
  /// When libcurl wants to be called, whatever happens on its sockets.
  private var timer: MonotonicInstant?
  /// The time at the last turn. libcurl counts its timers from its own, later clock reading; by taking them from this
  /// one they may fire a moment early, upon which it asks for the rest.
  private var now = MonotonicInstant.now()

  private let idleConnectionLimit: Int
  /// Connections in use that libcurl has been told to allow for.
  private var allowance = 0

  /// Events taken in one turn; the rest wait for the next.
  private static let eventLimit = 512

  init(maxConnections: Int) {
    CurlLibrary.start()
    guard let multi = curl_multi_init() else { fatalError("HTTPEngine: libcurl has no memory for a multi handle") }
    self.multi = multi
    epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    bell = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    precondition(epoll >= 0 && bell >= 0, "HTTPEngine: no descriptors left: \(String(cString: strerror(errno)))")
    events = .allocate(capacity: Self.eventLimit)
    curl_shim_multi_set_long(multi, CURLMOPT_PIPELINING, Int(CURLPIPE_MULTIPLEX))
    idleConnectionLimit = max(1, maxConnections)
    let context = Unmanaged.passUnretained(self).toOpaque()
    curl_shim_multi_set_callbacks(multi, Self.onSocket, Self.onTimer, context)
    watch(bell, EPOLLIN.rawValue)
  }

  /// Every easy handle must have been removed.
  deinit {
    curl_multi_cleanup(multi)
    close(epoll)
    close(bell)
    events.deallocate()
  }

  /// libcurl counts connections in use against the size of its pool, and closes an idle one for every request that ends
  /// while the pool is "full": many exchanges that hang would cost the others their kept-alive connections. So the pool
  /// is made to grow with what is under way; in steps, for it need not be exact.
  func keepIdleConnections(besides active: Int) {
    let step = 256
    let wanted = (active / step + 1) * step
    // Shrinks only when clearly too large, or it would go to and fro around a step.
    guard wanted > allowance || wanted + step < allowance else { return }
    allowance = wanted
    curl_shim_multi_set_long(multi, CURLMOPT_MAXCONNECTS, idleConnectionLimit + allowance)
  }

  /// Waits until something happens, libcurl's own timer included, and lets libcurl act on it.
  /// - Returns: the time after waiting.
  func turn(longestMilliseconds: Int) -> MonotonicInstant {
    var milliseconds = longestMilliseconds
    if let timer, milliseconds > 0 { milliseconds = min(milliseconds, now.milliseconds(until: timer)) }
    let count = epoll_wait(epoll, events.baseAddress, Int32(events.count), Int32(clamping: milliseconds))
    now = .now()
    var running: Int32 = 0
    // A negative count is an interrupted wait, and no event.
    for index in 0..<max(0, Int(count)) {
      let event = events[index]
      if event.data.fd == bell {
        var rings: eventfd_t = 0
        eventfd_read(bell, &rings)
      } else if sockets.isWanted(event.data.fd) {
        curl_multi_socket_action(multi, event.data.fd, Self.curlEvents(event.events), &running)
      } else {
        unwatch(event.data.fd)
      }
    }
    if let timer, timer <= now {
      self.timer = nil
      curl_multi_socket_action(multi, curl_socket_t(CURL_SOCKET_TIMEOUT), 0, &running)
    }
    return now
  }

  /// The next exchange that has ended. The message is good until its handle is removed.
  func nextEnded() -> (easy: UnsafeMutableRawPointer, code: CURLcode)? {
    var remaining: Int32 = 0
    while let message = curl_multi_info_read(multi, &remaining) {
      if message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle {
        return (easy, message.pointee.data.result)
      }
    }
    return nil
  }

  private static func curlEvents(_ events: UInt32) -> Int32 {
    var result: Int32 = 0
    if events & EPOLLIN.rawValue != 0 { result |= CURL_CSELECT_IN }
    if events & EPOLLOUT.rawValue != 0 { result |= CURL_CSELECT_OUT }
    // libcurl learns the cause by reading or writing.
    if events & (EPOLLERR.rawValue | EPOLLHUP.rawValue) != 0 { result |= CURL_CSELECT_IN | CURL_CSELECT_OUT }
    return result
  }

  /// Puts a descriptor into the set, or changes what it is watched for. It may be there already, or have been closed
  /// and opened anew under the same number: the kernel knows, so ask it and correct.
  private func watch(_ descriptor: Int32, _ mask: UInt32) {
    var event = epoll_event(events: mask, data: epoll_data_t(fd: descriptor))
    if epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) != 0, errno == EEXIST {
      epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event)
    }
  }

  private func unwatch(_ descriptor: Int32) {
    var unused = epoll_event()
    epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, &unused)
  }

  private static let onSocket: curl_socket_callback = { _, descriptor, what, context, _ in
    guard let context else { return 0 }
    let driver = Unmanaged<MultiDriver>.fromOpaque(context).takeUnretainedValue()
    let mask: UInt32 =
      switch what {
      case CURL_POLL_IN: EPOLLIN.rawValue
      case CURL_POLL_OUT: EPOLLOUT.rawValue
      case CURL_POLL_INOUT: EPOLLIN.rawValue | EPOLLOUT.rawValue
      default: 0
      }
    if mask == 0 {
      if !driver.sockets.pause(descriptor) { driver.unwatch(descriptor) }
    } else if !driver.sockets.resume(descriptor, mask) {
      driver.watch(descriptor, mask)
    }
    return 0
  }

  private static let onTimer: curl_multi_timer_callback = { _, milliseconds, context in
    guard let context else { return 0 }
    let driver = Unmanaged<MultiDriver>.fromOpaque(context).takeUnretainedValue()
    driver.timer = milliseconds < 0 ? nil : driver.now.advanced(byMilliseconds: milliseconds)
    return 0
  }
}
