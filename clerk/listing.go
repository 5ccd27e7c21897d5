package clerk

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// ErrMoving is a list of users that changed under every attempt to read it.
var ErrMoving = errors.New("the list of users kept changing while it was read; try again at a quieter time")

// ErrTooMany is more users than a listing holds in memory.
var ErrTooMany = fmt.Errorf("there are more than %d users", MaxUsers)

const (
	// MaxUsers is how many users may be listed. A million take some 400 MB of memory when all of them
	// differ, and 200 when few do.
	MaxUsers = 1_000_000

	listings = 5 // how often a listing may begin anew
)

// errMoved says that this attempt at a listing is worth nothing.
var errMoved = errors.New("the list has moved")

// List returns every user to each, the oldest first, and returns nil only if the listing was complete.
// When the list moves meanwhile it begins anew and calls restart first.
//
// Clerk pages by offset, so a user that is deleted on an earlier page draws all later ones forward, and
// one is never seen. Each page therefore begins with the last user of the page before; if another stands
// there, the list has moved. A page that is cut short shows in the count.
func (b *Backend) List(ctx context.Context, restart func(total int), each func(User)) error {
	for range listings {
		err := b.listOnce(ctx, restart, each)
		if !errors.Is(err, errMoved) {
			return err
		}
	}
	return ErrMoving
}

func (b *Backend) listOnce(ctx context.Context, restart func(total int), each func(User)) error {
	before, err := b.count(ctx)
	if err != nil {
		return err
	}
	if before > MaxUsers {
		return ErrTooMany
	}
	restart(before)
	seen := make(map[string]struct{}, before)
	for last := ""; ; {
		page, full, err := b.next(ctx, last, len(seen))
		if err != nil {
			return err
		}
		for _, u := range page {
			if _, twice := seen[u.ID]; twice {
				return errMoved
			}
			seen[u.ID], last = struct{}{}, u.ID
			each(u)
		}
		if len(seen) > MaxUsers {
			return ErrTooMany
		}
		if !full {
			return b.complete(ctx, before, len(seen))
		}
	}
}

// next returns the users that follow the last one, of which there were n in all. full says that more
// may follow.
func (b *Backend) next(ctx context.Context, last string, n int) (page []User, full bool, err error) {
	if n == 0 {
		page, err = b.page(ctx, b.pageSize, 0)
		return page, len(page) == b.pageSize, err
	}
	// One of the page is the user before. With pages of one there must be another.
	limit := max(b.pageSize, 2)
	page, err = b.page(ctx, limit, n-1)
	if err != nil {
		return nil, false, err
	}
	if len(page) == 0 || page[0].ID != last {
		return nil, false, errMoved
	}
	return page[1:], len(page) == limit, nil
}

// complete compares with the count. A user may have come or gone since either count was taken, so the
// smaller of the two must be reached.
func (b *Backend) complete(ctx context.Context, before, listed int) error {
	after, err := b.count(ctx)
	if err != nil {
		return err
	}
	if listed < min(before, after) {
		return errMoved
	}
	return nil
}

// Confirm calls each with those of the ids that do exist. witness is the id of a user who does: an
// answer without it is no proof that the others are gone, and an error. It may be "" when there is
// nobody who could be one.
func (b *Backend) Confirm(ctx context.Context, witness string, ids []string, each func(User)) error {
	for ask := range slices.Chunk(ids, idsLimit-1) {
		if witness != "" {
			ask = append([]string{witness}, ask...)
		}
		list, err := b.byID(ctx, ask)
		if err != nil {
			return err
		}
		present := witness == ""
		for _, u := range list {
			if u.ID == witness {
				present = true
				continue
			}
			each(u)
		}
		if !present {
			return fmt.Errorf("%w: it does not know a user that it has just listed", ErrBackend)
		}
	}
	return nil
}
