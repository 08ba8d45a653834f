// A storage driver for one node of the test cluster, whose volumes can grow while they are mounted.
//
// The harness makes the volumes: files with XFS, on loop devices, mounted on the host. A volume's handle is NODE/NAME, its
// file ROOT/NODE/volume-images/NAME, its mount ROOT/NODE/volumes/NAME. The driver binds them into pods and lets them grow.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	name, node, root, socket string
}

func main() {
	d := &driver{}
	flag.StringVar(&d.name, "name", "", "the driver's name")
	flag.StringVar(&d.node, "node", "", "the node's name")
	flag.StringVar(&d.root, "root", "", "the folder with a folder for each node")
	flag.StringVar(&d.socket, "socket", "", "where kubelet and resizer reach the driver")
	registry := flag.String("registry", "", "the kubelet's folder of new plugins")
	flag.Parse()
	ended := make(chan error)
	go func() { ended <- d.serve(d.socket) }()
	go func() { ended <- d.serve(filepath.Join(*registry, d.name+"-reg.sock")) }()
	log.Fatal(<-ended)
}

func (d *driver) serve(socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(told))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	registration.RegisterRegistrationServer(server, d)
	return server.Serve(listener)
}

func told(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	answer, err := next(ctx, request)
	log.Printf("%s %v: %v", info.FullMethod, request, err)
	return answer, err
}

// Where a volume's file system is, and where it is mounted.
func (d *driver) places(handle string) (image, mount string, err error) {
	node, name, found := strings.Cut(handle, "/")
	image, mount = filepath.Join(d.root, node, "volume-images", name), filepath.Join(d.root, node, "volumes", name)
	if _, missing := os.Stat(image); !found || missing != nil {
		return "", "", status.Errorf(codes.NotFound, "there is no volume %q", handle)
	}
	return image, mount, nil
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	versions := []string{"1.0.0"}
	return &registration.PluginInfo{Type: "CSIPlugin", Name: d.name, Endpoint: d.socket, SupportedVersions: versions}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, said *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !said.PluginRegistered {
		log.Fatalf("not registered: %s", said.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	controller := &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
		Type: csi.PluginCapability_Service_CONTROLLER_SERVICE,
	}}}
	online := &csi.PluginCapability{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
		Type: csi.PluginCapability_VolumeExpansion_ONLINE,
	}}}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{controller, online}}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	expand := &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{
		Type: csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
	}}}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{expand}}, nil
}

func (d *driver) ControllerExpandVolume(_ context.Context, request *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	image, _, err := d.places(request.VolumeId)
	if err != nil {
		return nil, err
	}
	size := request.GetCapacityRange().GetRequiredBytes()
	before, err := os.Stat(image)
	if err != nil {
		return nil, err
	}
	if before.Size() < size {
		if err := os.Truncate(image, size); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: max(size, before.Size()), NodeExpansionRequired: true}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	expand := &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{
		Type: csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
	}}}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{expand}}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	_, mount, err := d.places(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(request.TargetPath, 0o750); err != nil {
		return nil, err
	}
	if mounted(request.TargetPath) {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	return &csi.NodePublishVolumeResponse{}, unix.Mount(mount, request.TargetPath, "", unix.MS_BIND, "")
}

func (d *driver) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if mounted(request.TargetPath) {
		if err := unix.Unmount(request.TargetPath, 0); err != nil {
			return nil, err
		}
	}
	if err := os.Remove(request.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// Whether another file system than its parent's is at a path.
func mounted(path string) bool {
	var here, above unix.Stat_t
	return unix.Stat(path, &here) == nil && unix.Stat(filepath.Dir(path), &above) == nil && here.Dev != above.Dev
}

// The file has grown already: the loop device learns that, and XFS grows under whoever writes to it. (ext4 would need
// CAP_SYS_RESOURCE for that, which root has not everywhere.)
func (d *driver) NodeExpandVolume(_ context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	image, mount, err := d.places(request.VolumeId)
	if err != nil {
		return nil, err
	}
	device, err := output("losetup", "--noheadings", "--output", "NAME", "--associated", image)
	if err != nil {
		return nil, err
	}
	if _, err := output("losetup", "--set-capacity", device); err != nil {
		return nil, err
	}
	if _, err := output("xfs_growfs", mount); err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: request.GetCapacityRange().GetRequiredBytes()}, nil
}

func output(program string, arguments ...string) (string, error) {
	text, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		return "", status.Errorf(codes.Internal, "%s: %v: %s", program, err, text)
	}
	return strings.TrimSpace(string(text)), nil
}
