import CLibCurl
import Glibc

/// What libcurl calls while it works on a transfer; always on the engine thread, inside `curl_multi_perform`.
enum TransferCallbacks {
  /// A piece of the response body. Taking less than offered makes libcurl close the connection.
  static let body: curl_write_callback = { bytes, size, count, context in
    guard let bytes, let context else { return 0 }
    let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
    return transfer.takeBody(UnsafeRawBufferPointer(start: bytes, count: size * count)) ? size * count : 0
  }

  /// One header line: of an interim response, of the response, or of the trailer.
  static let header: curl_write_callback = { bytes, size, count, context in
    guard let bytes, let context else { return 0 }
    let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
    return transfer.takeHeader(UnsafeRawBufferPointer(start: bytes, count: size * count)) ? size * count : 0
  }

  /// Asked for a socket to an address that is about to be dialled. This is where the egress policy holds: after name
  /// resolution, on the very address, so a name that changes its mind between check and use gains nothing.
  static let openSocket: curl_opensocket_callback = { context, purpose, address in
    guard let context, let address, purpose == CURLSOCKTYPE_IPCXN else { return curl_socket_t(-1) }
    let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
    return transfer.openSocket(address)
  }

  /// The connection stands and the request is about to go out.
  static let beforeRequest: curl_prereq_callback = { context, remoteAddress, _, remotePort, localPort in
    guard let context, let remoteAddress else { return Int32(CURL_PREREQFUNC_ABORT) }
    let ends = SocketTable.Ends(
      remoteAddress: String(cString: remoteAddress),
      remotePort: remotePort,
      localPort: localPort
    )
    return Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue().mayBegin(on: ends)
      ? Int32(CURL_PREREQFUNC_OK) : Int32(CURL_PREREQFUNC_ABORT)
  }

  /// Something may have been received or sent.
  static let progress: curl_xferinfo_callback = { context, _, _, _, _ in
    guard let context else { return 1 }
    return Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue().goesOn() ? 0 : 1
  }
}

extension Transfer {
  fileprivate func takeBody(_ bytes: UnsafeRawBufferPointer) -> Bool {
    let wanted = (200..<300).contains(status) ? keptBodyBytes : limits.excerptBytes
    if response.kept.count < wanted {
      response.kept.append(contentsOf: bytes.prefix(wanted - response.kept.count))
    }
    response.bodyBytes += bytes.count
    guard response.bodyBytes <= limits.bodyBytes else {
      response.isCutOff = true
      return false
    }
    return true
  }

  fileprivate func mayBegin(on ends: SocketTable.Ends) -> Bool {
    hasConnected = true
    dialling.foundUnreadBytes = !takeConnection(ends)
    return !dialling.foundUnreadBytes
  }

  /// Some of what a server may send reaches no other callback: the extensions of chunks, without end. Asking the kernel
  /// every time would cost more than most exchanges do.
  fileprivate func goesOn() -> Bool {
    guard response.headerBytes > 0 else { return true }
    response.turns += 1
    guard response.turns.isMultiple(of: 64), !speaksHTTP2, let received = receivedBytes else { return true }
    let first = response.receivedBytes ?? received
    response.receivedBytes = first
    guard received - first > limits.receivedBytes else { return true }
    response.isCutOff = true
    return false
  }

  fileprivate func takeHeader(_ line: UnsafeRawBufferPointer) -> Bool {
    response.headerBytes += line.count
    if let problem = response.head.take(line, isHTTP2: speaksHTTP2) {
      response.problem = problem
      return false
    }
    if line.count <= 2 {
      // At the end of the connection libcurl also hands over a line that has not ended.
      response.hasWholeHeader = line.last == 0x0A
    } else if line.starts(with: "HTTP/".utf8) {
      // A status line: what came before was an interim response.
      response.hasWholeHeader = false
    }
    guard response.headerBytes <= limits.headerBytes else {
      response.headersOverflowed = true
      return false
    }
    return true
  }

  fileprivate func openSocket(_ address: UnsafeMutablePointer<curl_sockaddr>) -> curl_socket_t {
    let length = Int(address.pointee.addrlen)
    guard let pointer = curl_shim_address(address),
      let ipAddress = IPAddress(socketAddress: UnsafeRawPointer(pointer), length: length)
    else { return curl_socket_t(-1) }
    if !usesProxy, let refusal = egress.refusal(of: ipAddress) {
      if dialling.firstRefusal == nil { dialling.firstRefusal = refusal }
      return curl_socket_t(-1)
    }
    dialling.sockets += 1
    // Close-on-exec: a child process of the host program must not hold deliveries' connections open.
    let type = address.pointee.socktype | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(address.pointee.family, type, address.pointee.protocol)
    if descriptor >= 0 { dialling.descriptors.append(descriptor) }
    return descriptor
  }
}
